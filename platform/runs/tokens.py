"""Runner tokens: made once, shown once, kept as a digest, compared in constant time.

A token names a runner, never a person: it can report and submit, and decide nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import timedelta

from audit import log
from audit.actors import Actor
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from runs.models import Runner, Target

TOKEN = re.compile(r"esc_[A-Za-z0-9_-]{43}")
TOKEN_DAYS = 90


class BadToken(Exception):
    """No token, an unknown one, an expired one or a revoked one. `runner` is set where known."""

    def __init__(self, message: str, runner: Runner | None = None) -> None:
        super().__init__(message)
        self.runner = runner


def digest_of_token(token: str) -> str:
    """What is stored of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def register(*, name: str, target: Target, operator: User, actor: Actor) -> tuple[Runner, str]:
    """Make a runner, or give one a new token; the old token is void. The token is not kept."""
    token = f"esc_{secrets.token_urlsafe(32)}"
    with transaction.atomic():
        runner, made = Runner.objects.update_or_create(
            name=name,
            defaults={
                "target": target,
                "operator": operator,
                "token_digest": digest_of_token(token),
                "token_expires_at": timezone.now() + timedelta(days=TOKEN_DAYS),
                "revoked_at": None,
            },
        )
        log.append(
            actor=actor,
            verb="runner.registered",
            subject=f"runner:{name}",
            target=target.name,
            data={
                "target": target.name,
                "operator": {"id": str(operator.pk), "name": operator.get_username()},
                "again": not made,
            },
        )
    return runner, token


def revoke(*, runner: Runner, actor: Actor, reason: str) -> None:
    """Close a runner's token for good."""
    with transaction.atomic():
        runner.revoked_at = timezone.now()
        runner.save(update_fields=["revoked_at"])
        log.append(
            actor=actor,
            verb="runner.revoked",
            subject=f"runner:{runner.name}",
            target=runner.target.name,
            reason=reason,
            data={"target": runner.target.name},
        )


def authenticate(token: str) -> Runner:
    """The runner that a token names. Raises BadToken."""
    if not TOKEN.fullmatch(token):
        raise BadToken("that is no runner token: register the runner again")
    digest = digest_of_token(token)
    runner = Runner.objects.select_related("target", "operator").filter(token_digest=digest).first()
    if runner is None or not hmac.compare_digest(runner.token_digest, digest):
        raise BadToken("unknown token: register the runner again")
    if runner.revoked_at is not None:
        raise BadToken("the token was revoked: register the runner again", runner)
    if runner.token_expires_at <= timezone.now():
        raise BadToken("the token expired: register the runner again", runner)
    if not runner.operator.is_active:
        raise BadToken("the runner's operator is no longer active: register it again", runner)
    return runner
