"""`manage.py register_runner NAME --target T --operator U --out FILE`: a runner and its token.

The token is in the file (mode 0600) and nowhere else. A target that is new begins with the null
mechanism of the repository.
"""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from audit import keys
from audit.actors import SYSTEM
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.core.validators import validate_slug
from runs import tokens
from runs.models import Target

from proposals import branches, lifecycle


class Command(BaseCommand):
    """Register a runner, or give one that is there a new token."""

    help = "Register a runner for a target and write its credentials to a file."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The options."""
        parser.add_argument("name")
        parser.add_argument("--target", required=True)
        parser.add_argument("--operator", required=True, help="the user who answers for it")
        parser.add_argument("--out", required=True, type=Path, help="a file that does not exist")
        parser.add_argument("--url", default="http://127.0.0.1:8000")
        parser.add_argument("--mechanism", default="null", help="what a new target begins with")

    def handle(self, *_: Any, **options: Any) -> None:
        """Register, and write the file."""
        name, out = options["name"], options["out"]
        try:
            validate_slug(name)
            validate_slug(options["target"])
        except ValidationError as error:
            raise CommandError("names have letters, digits, - and _ only") from error
        operator = User.objects.filter(username=options["operator"], is_active=True).first()
        if operator is None:
            raise CommandError(f"there is no user {options['operator']}")
        try:
            descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise CommandError(f"can't make {out}: {error.strerror}") from error
        try:
            with os.fdopen(descriptor, "w") as file:
                json.dump(self._register(name, operator, options), file)
        except BaseException:
            out.unlink()
            raise
        self.stdout.write(f"{name} runs for {options['target']}; its credentials are in {out}")

    def _register(self, name: str, operator: User, options: dict[str, Any]) -> dict[str, str]:
        try:
            public_key = keys.public_key_hex()
            target, _ = Target.objects.get_or_create(name=options["target"])
            if not target.desired_version:
                lifecycle.seed(target_id=target.pk, mechanism=options["mechanism"])
        except (keys.KeyProblem, branches.RepositoryError, lifecycle.Denied) as error:
            raise CommandError(str(error)) from error
        _, token = tokens.register(name=name, target=target, operator=operator, actor=SYSTEM)
        return {
            "url": options["url"],
            "token": token,
            "public_key": public_key,
            "runner": name,
            "target": target.name,
        }
