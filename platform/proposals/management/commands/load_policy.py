"""`manage.py load_policy FILE --by USER`: put a policy in force."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError

from proposals import lifecycle
from proposals.people import actor_of


class Command(BaseCommand):
    """Load a policy as the person who edited it; that person may not approve under it."""

    help = "Check a policy file and put it in force."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The options."""
        parser.add_argument("file", type=Path)
        parser.add_argument("--by", required=True, help="the policy owner who edited it")

    def handle(self, *_: Any, **options: Any) -> None:
        """Load it."""
        editor = User.objects.filter(username=options["by"]).first()
        if editor is None:
            raise CommandError(f"there is no user {options['by']}")
        try:
            text = options["file"].read_text("utf-8")
            version = lifecycle.set_policy(text=text, actor=actor_of(editor), editor=editor)
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"can't read {options['file']}: {error}") from error
        except lifecycle.Denied as denied:
            raise CommandError(f"{denied.code}: {denied.message}") from denied
        self.stdout.write(f"policy {version.digest[:12]} is in force, mode {version.mode}")
