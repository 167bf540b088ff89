"""Filters, pages and exports of a filtered view."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from audit import log, query
from audit.actors import SYSTEM, Actor, ActorKind
from audit.models import Entry
from audit.query import BadFilter, Filter
from django.utils import timezone

pytestmark = pytest.mark.django_db

ADA = Actor(kind=ActorKind.PERSON, id="7", name="ada")


@pytest.fixture
def entries() -> None:
    log.append(actor=ADA, verb="auth.login", subject="user:ada")
    log.append(
        actor=ADA, verb="review.approved", subject="proposal:1", target="demo", data={"n": 1}
    )
    log.append(actor=SYSTEM, verb="review.voided", subject="proposal:12", target="demo")
    log.append(actor=ADA, verb="auth.logout", subject="user:ada", reason='=HYPERLINK("x") 100% "ü"')


def seqs(**wanted: Any) -> list[int]:
    return [e.seq - _first() for e in query.select(Filter(**wanted))]


def _first() -> int:
    return Entry.objects.order_by("seq")[0].seq - 1


@pytest.mark.usefixtures("entries")
@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, [4, 3, 2, 1]),
        ({"actor": "ADA"}, [4, 2, 1]),
        ({"actor": "7"}, [4, 2, 1]),
        ({"actor": "ad"}, []),
        ({"verb": "review.approved"}, [2]),
        ({"verb": "review."}, [3, 2]),
        ({"subject": "proposal:1"}, [2]),
        ({"subject": "proposal:1*"}, [3, 2]),
        ({"target": "demo", "verb": "review.voided"}, [3]),
        ({"text": '100% "Ü"'}, []),  # SQLite folds ASCII letters alone
        ({"text": '100% "ü"'}, [4]),
        ({"text": "%"}, [4]),
        ({"text": '"n":1'}, []),  # quotes are looked for as text inside of values
        ({"text": "APPROVED"}, [2]),
        ({"since": date(2000, 1, 1), "until": date(9999, 12, 31)}, [4, 3, 2, 1]),
        ({"until": date(2000, 1, 1)}, []),
    ],
)
def test_filters(wanted: dict[str, Any], found: list[int]) -> None:
    assert seqs(**wanted) == found


@pytest.mark.usefixtures("entries")
def test_days_are_utc_and_both_are_included() -> None:
    today = timezone.now().astimezone(UTC).date()
    edges = {today - timedelta(days=1), today, today + timedelta(days=1)}
    assert len(seqs(since=min(edges), until=max(edges))) == 4
    moment = Entry.objects.latest("seq").at
    assert seqs(since=moment.date(), until=moment.date())
    assert isinstance(moment, datetime)


@pytest.mark.usefixtures("entries")
def test_pages_are_never_outside() -> None:
    page = query.page(Filter(), number=2, size=3)
    assert ([e.seq - _first() for e in page.entries], page.pages, page.total) == ([1], 2, 4)
    assert (page.newer, page.older) == (1, None)
    assert query.page(Filter(), number=99, size=3).number == 2
    assert query.page(Filter(), number=-1, size=0).number == 1
    assert query.page(Filter(verb="no.such")).pages == 1


def test_a_query_string_is_read_strictly() -> None:
    wanted = Filter.of({"actor": " ada ", "since": "2026-01-31", "page": "3", "text": "a\x00b"})
    assert wanted == Filter(actor="ada", since=date(2026, 1, 31), text="ab")
    assert Filter.of(wanted.as_query()) == wanted
    assert not Filter()
    with pytest.raises(BadFilter, match="2026-01-31"):
        Filter.of({"since": "yesterday"})
    with pytest.raises(BadFilter, match="200"):
        Filter.of({"text": "x" * 201})


@pytest.mark.usefixtures("entries")
def test_exports_hold_the_exact_bytes_and_no_formulas() -> None:
    lines = b"".join(query.as_jsonl(Filter(verb="review."))).splitlines()
    assert [json.loads(line)["verb"] for line in lines] == ["review.approved", "review.voided"]
    assert set(lines) <= {b.encode() for b in Entry.objects.values_list("body", flat=True)}
    rows = list(csv.DictReader(io.StringIO(b"".join(query.as_csv(Filter())).decode())))
    assert [r["verb"] for r in rows][-1] == "auth.logout"
    assert rows[-1]["reason"].startswith("'=HYPERLINK")
    assert json.loads(rows[1]["data"]) == {"n": 1}
    assert query.data_of(Entry.objects.get(verb="review.approved")) == {"n": 1}
    assert query.verbs() == ["auth.login", "auth.logout", "review.approved", "review.voided"]
