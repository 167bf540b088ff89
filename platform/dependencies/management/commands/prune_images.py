"""`manage.py prune_images`: remove old sandbox images that nothing needs.

Stays what is in force and what a rollback of the lock would need, what evidence of live mechanisms
and of open proposals names, what any container was made of, and what is young.
"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from audit import log
from audit.actors import SYSTEM
from audit.canonical import plain
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from proposals.models import Activation, Screening
from proposals.states import OPEN

from dependencies.models import LockVersion
from sandbox import pruning
from sandbox.backends import engine
from sandbox.errors import InfrastructureError

LOCKS_KEPT = 3


def wanted() -> set[str]:
    """Ids and names of images that must stay."""
    found: set[str] = set()
    for lock in LockVersion.objects.all()[:LOCKS_KEPT]:
        found |= {lock.image_id, lock.image_name}
    states = (Activation.State.LIVE, Activation.State.ACTIVATING)
    needed = Screening.objects.filter(
        Q(proposal__activations__state__in=states) | Q(proposal__state__in=[s.value for s in OPEN])
    )
    found |= set(needed.exclude(image_id="").values_list("image_id", flat=True))
    return found - {""}


class Command(BaseCommand):
    """Remove what may go, say what stays and why, and put it on the log."""

    help = "Remove old sandbox images that nothing needs."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The options."""
        parser.add_argument("--days", type=float, default=pruning.DAYS, help="younger ones stay")
        parser.add_argument("--dry-run", action="store_true", help="only say what would go")

    def handle(self, *_: Any, **options: Any) -> None:
        """Do it."""
        try:
            fates = pruning.prune(
                engine.connect(),
                wanted=wanted(),
                now=timezone.now(),
                days=options["days"],
                really=not options["dry_run"],
                tell=self.stdout.write,
            )
        except InfrastructureError as error:
            raise CommandError(str(error)) from error
        gone = [fate.image.image_id for fate in fates if fate.goes]
        if gone and not options["dry_run"]:
            with transaction.atomic():
                log.append(
                    actor=SYSTEM,
                    verb="image.pruned",
                    subject="image",
                    data=plain({"images": gone, "days": options["days"]}),
                )
