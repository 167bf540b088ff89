"""`manage.py demo`: the whole product on this machine; `--headless` plays it without a person."""

from __future__ import annotations

import os
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    help = "Start web server, worker and runner under one parent; Ctrl-C stops all of it."
    requires_system_checks = ()  # the database may not be there yet; setting up makes it

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--headless", action="store_true", help="play the story without a person or a browser"
        )
        parser.add_argument("--var", type=Path, help="headless: the folder to work in, fresh")
        parser.add_argument("--port", type=int, default=_port(), help="default: ESCAPEMENT_PORT")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["headless"]:
            sys.exit(self._headless(options["var"]))
        if options["var"]:
            raise CommandError("--var is for --headless; otherwise set ESCAPEMENT_VAR")
        from proposals.demo import parent  # noqa: PLC0415 - only where it is used

        sys.exit(parent.run(options["port"]))

    def _headless(self, var: Path | None) -> int:
        """Play it in a fresh var folder: this process starts again with the settings for it."""
        if os.environ.get("ESCAPEMENT_HEADLESS") != str(settings.VAR):
            if var is None:
                var = Path(tempfile.mkdtemp(prefix="escapement-headless-"))
            var = var.resolve()
            if var.exists() and any(var.iterdir()):
                raise CommandError(f"{var} is not empty: the headless demo needs a fresh folder")
            env = {**os.environ, "ESCAPEMENT_VAR": str(var), "ESCAPEMENT_HEADLESS": str(var)}
            env.pop("DATABASE_URL", None)  # a site's database is no stage for a demonstration
            command = [sys.executable, str(settings.ROOT / "manage.py"), "demo", "--headless"]
            os.execve(command[0], command, env)  # noqa: S606 - ourselves again, no shell
        from proposals.demo import headless  # noqa: PLC0415 - only where it is used

        return headless.run()


def _port() -> int:
    text = os.environ.get("ESCAPEMENT_PORT", "8000")
    if not (text.isdigit() and 0 < int(text) < 65536):
        raise CommandError(f"ESCAPEMENT_PORT={text!r}: a port is a number from 1 to 65535")
    return int(text)
