"""Two doors in front of every view: who is not logged in, and who asks too often; and one behind:
what the audit log can't take has not happened, and its page says so. Before all of them: whether
this server is alive, for machines.

The runner's API has a door of its own (a token), and limits of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from audit.head import AuditError
from audit.keys import KeyProblem
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.deprecation import MiddlewareMixin
from runs import limits

log = logging.getLogger(__name__)
ALIVE = "/healthz"
API = "/api/"
LOGIN_SECONDS, LOGINS_A_NAME, LOGINS_AN_ADDRESS = 300, 10, 50
POST_SECONDS, POSTS_A_PERSON = 60, 120


class Alive(MiddlewareMixin):
    """`/healthz`: 200 where this process and its database answer, else 503. Under any host name, by
    HTTP as well, for who asks is the machine beside it; and nothing else is told."""

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        """Answer for this one address."""
        if request.path != ALIVE:
            return None
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        except DatabaseError:
            log.exception("the database does not answer")
            return HttpResponse("no database\n", status=503, content_type="text/plain")
        return HttpResponse("ok\n", content_type="text/plain")


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
    """Bounded log-ins for each name and address, bounded POSTs for each person."""

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        """Answer 429 over the limit."""
        if request.method != "POST" or request.path.startswith(API):
            return None
        address = request.META.get("REMOTE_ADDR", "")
        if request.path == reverse("login"):
            name = request.POST.get("username", "")[:150].lower()
            over = limits.count(f"login-address:{address}", LOGIN_SECONDS) > LOGINS_AN_ADDRESS
            over = limits.count(f"login-name:{name}", LOGIN_SECONDS) > LOGINS_A_NAME or over
            return _slow_down(request, LOGIN_SECONDS) if over else None
        user = getattr(request, "user", None)
        who = f"user:{user.pk}" if user is not None and user.pk else f"address:{address}"
        over = limits.count(f"post-{who}", POST_SECONDS) > POSTS_A_PERSON
        return _slow_down(request, POST_SECONDS) if over else None


class NotOnTheLog(MiddlewareMixin):
    """No audit entry, no act: what was asked for was not done, and the page says why."""

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answer 503 where the audit log or its key can't take an entry."""
        if not isinstance(error, AuditError | KeyProblem):
            return None
        log.error("nothing was done: %s", error)
        text = f"Nothing was done, for the audit log can't take it: {error}."
        if request.path.startswith(API):
            return JsonResponse({"error": "audit_log", "message": text}, status=503)
        context = {
            "title": "The audit log does not hold",
            "text": f"{text} Tell whoever runs this platform: `manage.py verify_audit` says where.",
        }
        return render(request, "error.html", context, status=503)


def _slow_down(request: HttpRequest, seconds: int) -> HttpResponse:
    context = {
        "title": "Too many requests",
        "text": f"Wait up to {seconds} seconds, then try again. Nothing was done.",
    }
    response = render(request, "error.html", context, status=429)
    response["Retry-After"] = str(seconds)
    return response
