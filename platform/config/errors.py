"""Error pages: what happened and what to do, and nothing of our insides."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

API = "/api/"


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """400."""
    return _page(request, 400, "That request can't be read", "Go back and try again.")


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """403."""
    text = "Your account has no right to do this. Ask somebody who has it."
    return _page(request, 403, "Not for you", text)


def csrf(request: HttpRequest, reason: str = "") -> HttpResponse:
    """403 for a form that is not ours, or older than the session."""
    text = "The form was too old, or came from elsewhere. Reload the page and send it again."
    return _page(request, 403, "The form was not accepted", text)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """404."""
    text = "There is nothing here. Nothing is ever deleted: look at the address again."
    return _page(request, 404, "Not found", text)


def server_error(request: HttpRequest) -> HttpResponse:
    """500: a plain file, because whatever broke may break a template too."""
    if request.path.startswith(API):
        return HttpResponse(
            '{"error": "internal", "message": "try again; an operator should look at the log"}',
            status=500,
            content_type="application/json",
        )
    return HttpResponse(Path(settings.ROOT, "templates", "500.html").read_text(), status=500)


def _page(request: HttpRequest, status: int, title: str, text: str) -> HttpResponse:
    return render(request, "error.html", {"title": title, "text": text}, status=status)
