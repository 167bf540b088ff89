"""Reading a log for verification: the live one, another database, or a file that nobody touches.

Raw columns and no models for entries: what was damaged on purpose must still be readable.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from django.db import connections, transaction

from audit import canonical, triggers
from audit.evidence import Provider, providers
from audit.verifier import Kind, Problem, Result, compare_rows, verify

ALIAS = "audited"
COLUMNS = (
    *("seq", "prev", "digest", "body", "at", "actor_kind", "actor_id", "actor_name"),
    *("verb", "subject", "target", "reason"),
)
HEAD_COLUMNS = ("size", "hash", "root", "key", "signature")
COPY_ATTEMPTS = 5


class CouldNotLook(RuntimeError):
    """There is nothing to verify, or it can't be read; the message says what to do."""


@contextmanager
def opened(database: str) -> Iterator[str]:
    """The alias of a database given as a SQLite file or a postgresql:// URL.

    A file is copied first, its write-ahead log with it: the original is not even locked.
    """
    with tempfile.TemporaryDirectory(prefix="escapement-verify-") as folder:
        if database.startswith(("postgres://", "postgresql://")):
            options = _from_url(database)
        else:
            options = {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": str(_copy(Path(database), Path(folder))),
                "OPTIONS": {"transaction_mode": "IMMEDIATE"},
            }
        default = connections["default"].settings_dict
        empty = {"USER": "", "PASSWORD": "", "HOST": "", "PORT": "", "OPTIONS": {}}
        connections.databases[ALIAS] = {**default, **empty, **options}
        try:
            yield ALIAS
        finally:
            connections[ALIAS].close()
            del connections[ALIAS]
            del connections.databases[ALIAS]


def _from_url(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": parts.port or "",
    }


def _copy(database: Path, folder: Path) -> Path:
    """A copy of a SQLite file as it is at one moment."""
    parts = [database, database.with_name(database.name + "-wal")]
    copy = folder / "copy.sqlite3"
    for _ in range(COPY_ATTEMPTS):
        try:
            before = _state(parts)
            shutil.copyfile(database, copy)
            if before[1] is not None:
                shutil.copyfile(parts[1], folder / "copy.sqlite3-wal")
            if _state(parts) == before:
                return copy
        except OSError as error:
            raise CouldNotLook(f"{database} can't be read: {error.strerror}") from error
    raise CouldNotLook(f"{database} is being written to: verify it without --database, or a copy")


def _state(parts: list[Path]) -> list[tuple[int, int] | None]:
    """Size and time of the files; the first one must exist."""
    status = parts[0].stat()
    states: list[tuple[int, int] | None] = [(status.st_size, status.st_mtime_ns)]
    try:
        status = parts[1].stat()
    except FileNotFoundError:
        return [*states, None]
    return [*states, (status.st_size, status.st_mtime_ns)]


@contextmanager
def snapshot(using: str) -> Iterator[None]:
    """One consistent view of the database, without holding up its writers."""
    connection = connections[using]
    if connection.in_atomic_block:
        yield
    elif connection.vendor == "postgresql":
        with transaction.atomic(using=using):
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield
    else:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN DEFERRED")
        try:
            yield
        finally:
            with connection.cursor() as cursor:
                cursor.execute("ROLLBACK")


def entries(using: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every entry: its bytes as text, and its columns."""
    for row in _select(using, "audit_entry", COLUMNS, "seq"):
        stored = dict(zip(COLUMNS, row, strict=True))
        body = stored.pop("body")
        stored["at"] = _moment(stored["at"])
        yield body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body), stored


def head(using: str) -> dict[str, Any] | None:
    """The head's columns."""
    rows = list(_select(using, "audit_head", HEAD_COLUMNS, "id"))
    return dict(zip(HEAD_COLUMNS, rows[0], strict=True)) if rows else None


def notes(using: str) -> list[str]:
    """The checkpoints' notes, oldest first."""
    return [str(row[0]) for row in _select(using, "audit_checkpoint", ("note",), "size")]


def examine(using: str, *, key: str, anchors: list[str]) -> Result:
    """Verify the log of a database, its triggers, and the rows of every provider against it."""
    connection = connections[using]
    with snapshot(using):
        if "audit_entry" not in connection.introspection.table_names():
            raise CouldNotLook("there is no audit log in it: is this the platform's database?")
        result = verify(
            entries=entries(using), head=head(using), notes=notes(using), key=key, anchors=anchors
        )
        for name in triggers.missing(connection):
            message = f"{name} is missing or changed: the log is not append-only here"
            result.problems.append(Problem(kind=Kind.TRIGGER, seq=None, message=message))
        for provider in providers():
            result.problems += compared(provider, result, using)
    return result


def compared(provider: Provider, result: Result, using: str) -> list[Problem]:
    """A provider's rows against the log; rows that can't even be read are a problem too."""
    try:
        return compare_rows(result.facts, provider.rows(using), kinds=provider.kinds)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        message = f"rows of {provider.name} can't be read ({error!r}): they were damaged"
        return [Problem(kind=Kind.ROW, seq=None, message=message[:500])]


def _select(
    using: str, table: str, columns: tuple[str, ...], order: str
) -> Iterator[tuple[Any, ...]]:
    connection = connections[using]
    quoted = ", ".join(connection.ops.quote_name(c) for c in columns)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {quoted} FROM {table} ORDER BY {order}")  # noqa: S608 - constants
        while rows := cursor.fetchmany(1000):
            yield from rows


def _moment(value: object) -> str:
    """A moment as the entry has it; what is no moment stays as it is, and will differ."""
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        return str(value)
    return canonical.utc(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
