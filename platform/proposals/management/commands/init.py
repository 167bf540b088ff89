"""`manage.py init`: keys, the living mechanisms repository, the first policy, the seed's approved
operators. Safe to repeat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audit import keys
from audit.actors import SYSTEM
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from proposals import branches, lifecycle, operators
from proposals.models import PolicyVersion


class Command(BaseCommand):
    """Make what the platform lives on, where it is not there yet."""

    help = "Make keys, the mechanisms repository from its seed, and load the first policy."

    def handle(self, *_: Any, **__: Any) -> None:
        """Do it, and say what was made and what was there."""
        try:
            made = keys.ensure_keys()
            self.stdout.write(f"keys: {'made' if made else 'there'} ({settings.KEYS})")
            repository = branches.living()
            there = repository.exists()
            head = repository.init(Path(settings.MECHANISMS_SEED))
            names = ", ".join(sorted(repository.library(head)))
            word = "there" if there else "made from the seed"
            self.stdout.write(f"mechanisms repository: {word}, main at {head[:12]} ({names})")
            if not PolicyVersion.objects.exists():
                text = Path(settings.POLICY_SEED).read_text("utf-8")
                lifecycle.set_policy(text=text, actor=SYSTEM)
            entered = lifecycle.enter_seed()
            good, bad = operators.approved()
            word = f"{len(entered)} of the seed entered and signed" if entered else "entered before"
            self.stdout.write(f"approved operators: {word}, {len(good)} count")
            for name, why in bad.items():
                self.stderr.write(f"approved operator {name} counts for nothing: {why}")
            version, policy = lifecycle.policy_in_force()
            self.stdout.write(f"policy: {policy.title}, {policy.mode} ({version.digest[:12]})")
        except (keys.KeyProblem, branches.RepositoryError, lifecycle.Denied, OSError) as error:
            raise CommandError(str(error)) from error
