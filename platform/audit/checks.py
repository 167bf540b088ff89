"""System checks: the log's triggers are in place, and SQLite's writers queue at BEGIN.

They run with `migrate` and `check --database default`; `audit.head` looks at the triggers again
at each append, so that no act passes without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, register
from django.db import connections

from audit import triggers


@register(Tags.database)
def append_only(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """Errors for each database whose audit log is not protected."""
    found: list[CheckMessage] = []
    for alias in databases or ():
        connection = connections[alias]
        connection.ensure_connection()  # the mode is known from then on
        mode = getattr(connection, "transaction_mode", None)
        if connection.vendor == "sqlite" and mode != "IMMEDIATE":
            found.append(
                Error(
                    "SQLite transactions are not IMMEDIATE: two writers could read the same end.",
                    hint='Set OPTIONS["transaction_mode"] = "IMMEDIATE".',
                    id="audit.E001",
                )
            )
        if "audit_entry" not in connection.introspection.table_names():
            continue  # before the first migration
        if absent := triggers.missing(connection):
            found.append(
                Error(
                    f"Triggers of the audit log are missing or changed: {', '.join(absent)}.",
                    hint="Run `python manage.py verify_audit`, find out who dropped them, then "
                    "`python manage.py migrate audit 0001 --fake && python manage.py migrate audit`"
                    " puts them back.",
                    id="audit.E002",
                )
            )
    return found
