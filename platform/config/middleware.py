"""Two doors in front of every view: who is not logged in, and who asks too often.

The runner's API has a door of its own (a token), and limits of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils.deprecation import MiddlewareMixin

API = "/api/"
LOGIN_SECONDS, LOGINS_A_NAME, LOGINS_AN_ADDRESS = 300, 10, 50
POST_SECONDS, POSTS_A_PERSON = 60, 120


class DenyByDefault(LoginRequiredMiddleware):
    """Every view asks for an account, but the log-in page and the runner's API."""

    def process_view(
        self,
        request: HttpRequest,
        view_func: Callable[..., HttpResponseBase],
        view_args: tuple[Any, ...],
        view_kwargs: dict[str, Any],
    ) -> HttpResponseBase | None:
        """Turn everybody else away."""
        if request.path.startswith(API):
            return None
        return super().process_view(request, view_func, view_args, view_kwargs)


class RateLimit(MiddlewareMixin):
    """Bounded log-ins for each name and address, bounded POSTs for each person.

    Counted in the cache: with several processes and the default cache, each counts by itself.
    """

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        """Answer 429 over the limit."""
        if request.method != "POST" or request.path.startswith(API):
            return None
        address = request.META.get("REMOTE_ADDR", "")
        if request.path == reverse("login"):
            name = request.POST.get("username", "")[:150].lower()
            over = _over(f"login-address:{address}", LOGINS_AN_ADDRESS, LOGIN_SECONDS)
            over = _over(f"login-name:{name}", LOGINS_A_NAME, LOGIN_SECONDS) or over
            return _slow_down(request, LOGIN_SECONDS) if over else None
        user = getattr(request, "user", None)
        who = f"user:{user.pk}" if user is not None and user.pk else f"address:{address}"
        over = _over(f"post-{who}", POSTS_A_PERSON, POST_SECONDS)
        return _slow_down(request, POST_SECONDS) if over else None


def _over(key: str, limit: int, seconds: int) -> bool:
    """Count one more within a window that starts at its first; whether that is too many."""
    hashed = f"rate:{hashlib.sha256(key.encode()).hexdigest()}"
    if cache.add(hashed, 1, seconds):
        return limit < 1
    try:
        return cache.incr(hashed) > limit
    except ValueError:  # the window ended in between
        cache.set(hashed, 1, seconds)
        return limit < 1


def _slow_down(request: HttpRequest, seconds: int) -> HttpResponse:
    context = {
        "title": "Too many requests",
        "text": f"Wait up to {seconds} seconds, then try again. Nothing was done.",
    }
    response = render(request, "error.html", context, status=429)
    response["Retry-After"] = str(seconds)
    return response
