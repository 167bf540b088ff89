"""`manage.py people`: who is there; `people add NAME --role review`, `people close NAME`.

Roles are those of the policy in force. A new password is printed once; `manage.py changepassword
NAME` lets the person type another. An account is closed, never removed: the log goes on naming it.
Both are on the audit log.
"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from proposals import accounts
from proposals.acts import Denied


class Command(BaseCommand):
    """List, add or close."""

    help = "List the people of this site; add one with roles; close an account."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The options."""
        verbs = parser.add_subparsers(dest="verb", metavar="add|close")
        add = verbs.add_parser("add", help="make an account; prints its password once")
        add.add_argument("name")
        add.add_argument("--role", action="append", required=True, choices=accounts.ROLES)
        close = verbs.add_parser("close", help="nobody logs in with it any more")
        close.add_argument("name")

    def handle(self, *_: Any, **options: Any) -> None:
        """Do the one that was asked for."""
        try:
            if options["verb"] == "add":
                password = accounts.create(options["name"], roles=options["role"])
                self.stdout.write(f"{options['name']} {password}")
            elif options["verb"] == "close":
                accounts.close(options["name"])
                self.stdout.write(f"{options['name']} is closed")
            else:
                for person in User.objects.order_by("username").prefetch_related("groups"):
                    groups = ", ".join(sorted(g.name for g in person.groups.all()))
                    closed = "" if person.is_active else "  (closed)"
                    self.stdout.write(f"{person.username:<20} {groups}{closed}")
        except Denied as denied:
            raise CommandError(denied.message) from denied
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from error
