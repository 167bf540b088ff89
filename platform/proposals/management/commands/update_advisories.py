"""`manage.py update_advisories FILE`: store a snapshot of advisories, and say so in the log."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from audit import log
from audit.actors import SYSTEM
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from proposals.people import actor_of
from sandbox import advisories, vulnerabilities
from sandbox.advisory_files import SnapshotError
from sandbox.bills import described


class Command(BaseCommand):
    """Take a snapshot whole or not at all; audit the sandbox image's lock by it."""

    help = "Store a snapshot of advisories (OSV records: JSON, gzip or zip) and audit the image."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The options."""
        parser.add_argument("file", type=Path)
        parser.add_argument("--by", help="who brings it; without it, the system")
        parser.add_argument("--older", action="store_true", help="go back to an older snapshot")

    def handle(self, *_: Any, **options: Any) -> None:
        """Store, record, audit."""
        actor = SYSTEM
        if options["by"]:
            person = User.objects.filter(username=options["by"], is_active=True).first()
            if person is None:
                raise CommandError(f"there is no user {options['by']}")
            actor = actor_of(person)
        now, where = datetime.now(UTC), advisories.folder()
        try:
            with transaction.atomic():
                taken = advisories.store(
                    options["file"], into=where, now=now, older=options["older"]
                )
                log.append(
                    actor=actor,
                    verb="advisories.updated",
                    subject=f"advisories:{taken.digest[:12]}",
                    data={
                        "digest": taken.digest,
                        "dated": taken.dated,
                        "advisories": taken.advisories,
                        "packages": taken.packages,
                        "source": taken.source,
                        "older": options["older"],
                    },
                )
        except (SnapshotError, OSError) as error:
            raise CommandError(f"the snapshot was not taken: {error}") from error
        self.stdout.write(f"stored {taken.advisories} advisories about {taken.packages} packages")
        scan = vulnerabilities.current(where=where, now=now)
        for line in described(scan, now):
            self.stdout.write(line)
