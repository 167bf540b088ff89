"""`manage.py export_evidence --out FILE.zip --by USER`: the evidence bundle, an audited act."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from audit import export
from audit.actors import SYSTEM, Actor, ActorKind
from audit.head import AuditError
from audit.keys import KeyProblem


class Command(BaseCommand):
    """Write the evidence bundle."""

    help = "Write an evidence bundle that verifies offline (unzip it, run verify.py)."
    requires_system_checks: list[str] = []  # noqa: RUF012 - the log is checked at each append

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The options."""
        parser.add_argument("--out", metavar="FILE", required=True, help="a new .zip file")
        parser.add_argument("--by", metavar="USER", help="who exports; default: the platform")
        parser.add_argument("--reason", default="", help="why, for the log")

    def handle(self, *_: Any, **options: Any) -> None:
        """Export."""
        path = Path(options["out"]).resolve()
        if not path.parent.is_dir():
            raise CommandError(f"{path.parent} is no folder: make it first")
        try:
            bundle = export.write(path, actor=_actor(options["by"]), reason=options["reason"])
        except (AuditError, KeyProblem, DatabaseError) as error:
            raise CommandError(f"no evidence: {error}") from error
        self.stdout.write(
            f"{bundle.path}: {bundle.files} files, {bundle.size_bytes} bytes, "
            f"{bundle.proposals} proposals, entries 1 to {bundle.entry}\nsha256 {bundle.digest}"
        )


def _actor(name: str | None) -> Actor:
    if not name:
        return SYSTEM
    person = get_user_model()._default_manager.filter(username=name, is_active=True).first()
    if person is None:
        raise CommandError(f"{name} is no active account: `manage.py people` lists them")
    return Actor(kind=ActorKind.PERSON, id=str(person.pk), name=person.get_username())
