"""`manage.py create_people`: the demo's people, with passwords that are printed once."""

from __future__ import annotations

import secrets
from typing import Any

from audit import log
from audit.actors import SYSTEM
from django.contrib.auth.models import Group, User
from django.core.management.base import BaseCommand
from django.db import transaction

from proposals.lifecycle import policy_in_force

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
        roles = policy_in_force()[1].people.roles
        for role in ("review", "operate", "audit", "own_policy"):
            Group.objects.get_or_create(name=getattr(roles, role))
        for name, (first, last, rights) in PEOPLE.items():
            if User.objects.filter(username=name).exists():
                continue
            groups = [getattr(roles, right) for right in rights]
            password = secrets.token_urlsafe(9)
            with transaction.atomic():
                person = User.objects.create_user(
                    name, password=password, first_name=first, last_name=last
                )
                person.groups.set(Group.objects.filter(name__in=groups))
                log.append(
                    actor=SYSTEM,
                    verb="user.created",
                    subject=f"user:{name}",
                    data={"id": str(person.pk), "groups": groups},
                )
            self.stdout.write(f"{name} {password}")
