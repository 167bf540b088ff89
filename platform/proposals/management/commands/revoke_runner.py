"""`manage.py revoke_runner NAME --by USER --reason WHY`: close a runner's token at once.

The runner's process goes on with what it runs and can report nothing more. `register_runner` gives
it a new token.
"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError
from runs import tokens
from runs.models import Runner

from proposals.acts import Denied, policy_in_force, said
from proposals.people import actor_of, may_stop


class Command(BaseCommand):
    """Revoke a token, as a person who may stop a target."""

    help = "Close a runner's token at once; its target and its runs stay."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The options."""
        parser.add_argument("name")
        parser.add_argument("--by", required=True, help="the reviewer or operator who does it")
        parser.add_argument("--reason", required=True)

    def handle(self, *_: Any, **options: Any) -> None:
        """Revoke it."""
        person = User.objects.filter(username=options["by"], is_active=True).first()
        runner = Runner.objects.select_related("target").filter(name=options["name"]).first()
        if person is None or runner is None:
            raise CommandError("there is no such user, or no such runner")
        try:
            if not may_stop(person, policy_in_force()[1]):
                raise CommandError("only reviewers and operators may revoke a runner's token")
            reason = said(options["reason"])
        except Denied as denied:
            raise CommandError(denied.message) from denied
        if runner.revoked_at is not None:
            raise CommandError(f"the token of {runner.name} was revoked at {runner.revoked_at}")
        tokens.revoke(runner=runner, actor=actor_of(person), reason=reason)
        self.stdout.write(f"the token of {runner.name} is closed")
