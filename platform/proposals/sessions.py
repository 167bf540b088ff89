"""The end of a session on the audit log; `accounts` writes its beginning."""

from __future__ import annotations

from typing import Any

from audit import log
from django.contrib.auth.models import User
from django.db import transaction

from proposals.people import actor_of


def logged_out(*, user: Any = None, **_: Any) -> None:
    """A person logged out."""
    if isinstance(user, User):
        with transaction.atomic():
            log.append(
                actor=actor_of(user), verb="auth.logout", subject=f"user:{user.get_username()}"
            )
