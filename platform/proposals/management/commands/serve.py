"""`manage.py serve`: the web server of a site; it does not start on half an installation.

One process. It ends with exit code 1, and the command that puts it right, where the database, its
triggers, the key, the repository or the policy is missing, or the settings are not for a public
site though they say so.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser
from typing import Any

import uvicorn
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from proposals import health

GRACE_SECONDS = 10


class Command(BaseCommand):
    """Look at what serving needs, then serve."""

    help = "Serve the pages and the runners' API; refuse where the installation is not whole."
    requires_system_checks: list[str] = []  # noqa: RUF012 - what is missing is said below

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The options."""
        parser.add_argument("--host", default="127.0.0.1", help="default: this machine alone")
        parser.add_argument("--port", type=int, default=8000)

    def handle(self, *_: Any, **options: Any) -> None:
        """Look, then serve until a signal."""
        bad = [look for look in health.look(only=health.SERVING) if look.fix]
        for look in bad:
            self.stderr.write(f"{look.part}: {look.words}\n    fix: {look.fix}")
        if bad:
            raise CommandError("not serving: put this right first")
        if settings.HTTPS:
            call_command("check", deploy=True, fail_level="WARNING", stdout=self.stdout)
        connections.close_all()
        # Whose X-Forwarded-For and -Proto count: uvicorn's own variable and default.
        proxies = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")
        self.stdout.write(
            f"serving {', '.join(settings.ALLOWED_HOSTS)} on {options['host']}:{options['port']}; "
            f"proxies: {proxies}"
        )
        uvicorn.run(
            "config.asgi:application",
            host=options["host"],
            port=options["port"],
            log_level="warning",
            forwarded_allow_ips=proxies,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
