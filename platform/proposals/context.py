"""What every page shows: navigation, the person's roles, open stops."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.http import HttpRequest
from django.urls import reverse

from proposals import desk, standing

PAGES = (
    ("inbox", "Inbox"),
    ("proposals", "Proposals"),
    ("targets", "Targets"),
    ("operators", "Operators"),
    ("runs", "Runs"),
    ("dependencies", "Packages"),
    ("audit", "Audit"),
    ("policy", "Policy"),
)


def frame(request: HttpRequest) -> dict[str, Any]:
    """The frame around each page; only the nonce for who is not logged in."""
    nonce = {"csp_nonce": getattr(request, "csp_nonce", None)}
    person = getattr(request, "user", None)
    if not isinstance(person, User):
        return nonce
    links = []
    for name, text in PAGES:
        href = reverse(name)
        current = request.path == href if href == "/" else request.path.startswith(href)
        count = len(desk.work_of(request, person)[0]) if name == "inbox" else 0
        links.append({"href": href, "text": text, "current": current, "count": count})
    roles = [
        g.replace("_", " ") for g in person.groups.order_by("name").values_list("name", flat=True)
    ]
    return {**nonce, "navigation": links, "my_roles": roles, "loud_banners": standing.banners()}
