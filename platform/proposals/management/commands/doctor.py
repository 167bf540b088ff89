"""`manage.py doctor`: look at every part and name the fix for what fails. Exit 0: all works."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from proposals import health


class Command(BaseCommand):
    """Look, tell, exit with 1 if a part does not work."""

    help = "Look at every part of this installation and name the fix for what fails."
    requires_system_checks: list[str] = []  # noqa: RUF012 - it must run where those would fail

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The options."""
        parser.add_argument(
            "--without-sandbox", action="store_true", help="leave out what takes some seconds"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Look at everything, even after a failure."""
        unwell = 0
        for look in health.look(
            lambda text: self.stdout.write(f"   ..  {text}"),
            sandbox=not options["without_sandbox"],
        ):
            if not look.fix:
                self.stdout.write(f"{self.style.SUCCESS('   ok')}  {look.part}: {look.words}")
                continue
            unwell += 1
            self.stdout.write(f"{self.style.ERROR('  BAD')}  {look.part}: {look.words}")
            self.stdout.write(f"       fix: {look.fix}")
        if unwell:
            self.stdout.write(self.style.ERROR(f"{unwell} parts do not work"))
            raise SystemExit(1)
        self.stdout.write(self.style.SUCCESS("every part works"))
