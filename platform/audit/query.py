"""Looking into the log: filters, pages, and a filtered view as CSV or JSONL.

Reads only. A filtered view is for people; what can be verified is the evidence bundle.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.db.models import Q, QuerySet

from audit.models import Entry

PAGE_SIZE = 50
MAX_PAGE_SIZE = 500
MAX_TERM_CHARS = 200
MAX_EXPORT_ROWS = 100_000
COLUMNS = (
    *("seq", "at", "actor_kind", "actor_id", "actor_name", "verb", "subject", "target"),
    *("reason", "data", "digest"),
)


class BadFilter(ValueError):
    """A filter that can't be applied; the message says what to write."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """What to look for; empty fields match everything.

    `actor` matches id or name, `verb` and `subject` exactly, or as a beginning with a trailing
    `*` or `.` (`review.`, `proposal:*`); `text` is anywhere in the entry. Days are UTC, both
    included.
    """

    actor: str = ""
    verb: str = ""
    subject: str = ""
    target: str = ""
    text: str = ""
    since: date | None = None
    until: date | None = None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Filter:
        """The filter of a page's query string; other keys are not ours. Raises BadFilter."""
        values: dict[str, Any] = {}
        for name in ("actor", "verb", "subject", "target", "text"):
            values[name] = query.get(name, "").strip().replace("\x00", "")
            if len(values[name]) > MAX_TERM_CHARS:
                raise BadFilter(f"{name} is longer than {MAX_TERM_CHARS} characters")
        for name in ("since", "until"):
            raw = query.get(name, "").strip()
            try:
                values[name] = date.fromisoformat(raw) if raw else None
            except ValueError as error:
                raise BadFilter(f"{name}={raw[:40]!r} is no day: write 2026-01-31") from error
        return cls(**values)

    def as_query(self) -> dict[str, str]:
        """The filter as a query string's keys and values, empty ones left out."""
        return {name: str(value) for name, value in asdict(self).items() if value}

    def __bool__(self) -> bool:
        return bool(self.as_query())


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page of entries, newest first; `older` and `newer` are page numbers or None."""

    entries: list[Entry]
    number: int
    pages: int
    total: int
    older: int | None
    newer: int | None


def select(wanted: Filter) -> QuerySet[Entry]:
    """The entries that match, newest first."""
    found = Entry.objects.order_by("-seq")
    if wanted.actor:
        found = found.filter(Q(actor_id=wanted.actor) | Q(actor_name__iexact=wanted.actor))
    if wanted.verb:
        found = found.filter(**_exact_or_beginning("verb", wanted.verb))
    if wanted.subject:
        found = found.filter(**_exact_or_beginning("subject", wanted.subject))
    if wanted.target:
        found = found.filter(target=wanted.target)
    if wanted.text:
        # The body is JSON: what is quoted there is looked for as it is quoted.
        quoted = json.dumps(wanted.text, ensure_ascii=False)[1:-1]
        found = found.filter(body__icontains=quoted)
    if wanted.since:
        found = found.filter(at__gte=_midnight(wanted.since))
    if wanted.until:
        try:
            found = found.filter(at__lt=_midnight(wanted.until) + timedelta(days=1))
        except OverflowError:
            return found
    return found


def page(wanted: Filter, *, number: int = 1, size: int = PAGE_SIZE) -> Page:
    """One page; a number outside is the nearest page there is."""
    size = max(1, min(size, MAX_PAGE_SIZE))
    found = select(wanted)
    total = found.count()
    pages = max(1, -(-total // size))
    number = max(1, min(number, pages))
    return Page(
        entries=list(found[(number - 1) * size : number * size]),
        number=number,
        pages=pages,
        total=total,
        older=number + 1 if number < pages else None,
        newer=number - 1 if number > 1 else None,
    )


def verbs() -> list[str]:
    """All verbs in the log, for a filter's choices."""
    return list(Entry.objects.order_by("verb").values_list("verb", flat=True).distinct())


def data_of(entry: Entry) -> dict[str, Any]:
    """The entry's data."""
    return dict(json.loads(entry.body)["data"])


def as_jsonl(wanted: Filter) -> Iterator[bytes]:
    """The matching entries, oldest first, as their exact bytes, one a line."""
    found = select(wanted).order_by("seq").values_list("body", flat=True)
    for body in found[:MAX_EXPORT_ROWS].iterator():
        yield body.encode() + b"\n"


def as_csv(wanted: Filter) -> Iterator[bytes]:
    """The matching entries, oldest first, as CSV that a spreadsheet does not run as formulas."""
    yield _csv_line(COLUMNS)
    for entry in select(wanted).order_by("seq")[:MAX_EXPORT_ROWS].iterator():
        body = json.loads(entry.body)
        data = json.dumps(body["data"], ensure_ascii=False, sort_keys=True)
        values = {"at": body["at"], "data": data}
        yield _csv_line([str(values.get(n, getattr(entry, n, ""))) for n in COLUMNS])


def safe_cell(value: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{value}" if value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value


def _csv_line(values: list[str] | tuple[str, ...]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow([safe_cell(v) for v in values])
    return out.getvalue().encode()


def _exact_or_beginning(column: str, value: str) -> dict[str, str]:
    if value.endswith("*"):
        return {f"{column}__startswith": value.removesuffix("*")}
    if value.endswith("."):
        return {f"{column}__startswith": value}
    return {column: value}


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
