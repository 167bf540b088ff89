"""`manage.py create_people`: the demo's people, with passwords that are printed once.

A site makes its own with `manage.py people add`.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand

from proposals import accounts

PEOPLE = {
    "ada": ("Ada", "Lovelace", ("review",)),
    "grace": ("Grace", "Hopper", ("review",)),
    "katherine": ("Katherine", "Johnson", ("audit",)),
    "linus": ("Linus", "Pauling", ("operate", "own_policy")),
}


class Command(BaseCommand):
    """Make who is missing; nobody who is there is changed."""

    help = "Make the demo people: two reviewers, an auditor, an operator who owns the policy."

    def handle(self, *_: Any, **__: Any) -> None:
        """Print `name password` for each person that was made."""
        for name, (first, last, roles) in PEOPLE.items():
            if not User.objects.filter(username=name).exists():
                password = accounts.create(name, roles=roles, first=first, last=last)
                self.stdout.write(f"{name} {password}")
