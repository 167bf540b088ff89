"""`manage.py verify_audit`: is the log whole, signed, and were the rules kept?

Exit 0: yes. 1: tampered, or a rule broken; each problem is named with its entry. 2: could not
look. It changes nothing.
"""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from audit import keys, source
from audit.evidence import providers
from audit.verifier import as_json, report


class Command(BaseCommand):
    """Verify the audit log, and the platform's rows against it."""

    help = "Verify the audit log. Exit 0: ok, 1: tampered, 2: could not look."
    requires_system_checks: list[str] = []  # noqa: RUF012 - a missing trigger is reported below

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The options."""
        parser.add_argument(
            "--database",
            metavar="FILE|URL",
            help="another SQLite file (copied first, never touched) or postgresql:// URL",
        )
        parser.add_argument("--public-key", metavar="FILE", help="default: platform.pub")
        parser.add_argument(
            "--anchor",
            metavar="FILE",
            action="append",
            default=[],
            help="a checkpoint that was kept elsewhere",
        )
        parser.add_argument("--json", action="store_true", help="the result as JSON")

    def handle(self, *_: Any, **options: Any) -> None:
        """Verify, print, and exit with the result's code."""
        try:
            key = _key(options["public_key"])
            anchors = [Path(name).read_text("utf-8") for name in options["anchor"]]
            if options["database"]:
                with source.opened(options["database"]) as alias:
                    result = source.examine(alias, key=key, anchors=anchors)
            else:
                anchors += [a for provider in providers() for a in provider.anchors()]
                result = source.examine("default", key=key, anchors=anchors)
        except (source.CouldNotLook, OSError, UnicodeError, DatabaseError) as error:
            raise CommandError(f"could not look: {error}", returncode=2) from error
        self.stdout.write(as_json(result) if options["json"] else report(result))
        if result.exit_code:
            raise SystemExit(result.exit_code)


def _key(name: str | None) -> str:
    """The pinned public key."""
    path = Path(name) if name else keys.public_path()
    try:
        key = path.read_text("ascii").strip()
        if len(bytes.fromhex(key)) != 32:
            raise ValueError
    except FileNotFoundError as error:
        message = f"{path} is missing: name the platform's key with --public-key FILE"
        raise source.CouldNotLook(message) from error
    except ValueError as error:
        message = f"{path} holds no Ed25519 public key (64 hex digits)"
        raise source.CouldNotLook(message) from error
    return key
