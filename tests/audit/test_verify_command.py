"""`manage.py verify_audit` on copies of a real database that somebody worked on with sqlite3."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from audit import source
from audit.verifier import Kind, Result
from django.core.management import CommandError, call_command

from tests.audit.conftest import Site


@pytest.fixture(autouse=True)
def other_databases(django_db_blocker: Any) -> Iterator[None]:
    """The command opens databases of its own; the tests' database is not needed."""
    with django_db_blocker.unblock():
        yield


def copy_of(site: Site, folder: Path) -> Path:
    copy = folder / "copy.sqlite3"
    shutil.copyfile(site.database, copy)
    return copy


def damage(copy: Path, *statements: str) -> None:
    """Drop all triggers, do it, put them back: nothing in the schema tells of it."""
    connection = sqlite3.connect(copy)
    connection.execute("PRAGMA foreign_keys = OFF")
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
    triggers = connection.execute(query).fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    for _, sql in triggers:
        connection.execute(sql)
    connection.commit()
    connection.close()


def examined(site: Site, copy: Path, *anchors: str) -> Result:
    key = site.public_key.read_text().strip()
    with source.opened(str(copy)) as alias:
        return source.examine(alias, key=key, anchors=list(anchors))


def code_of(site: Site, copy: Path) -> int:
    try:
        call_command("verify_audit", database=str(copy), public_key=str(site.public_key))
    except SystemExit as error:
        return int(error.code or 0)
    except CommandError as error:
        return error.returncode
    return 0


def swap(table: str, a: int, b: int, *columns: str) -> list[str]:
    """Statements that swap the content of two rows and keep unique columns content."""
    sets = ", ".join(f"{c} = (SELECT {c} FROM kept WHERE seq = {{}})" for c in columns)
    return [
        f"CREATE TEMP TABLE kept AS SELECT * FROM {table} WHERE seq IN ({a}, {b})",
        f"UPDATE {table} SET prev = -seq, digest = -seq WHERE seq IN ({a}, {b})",
        f"UPDATE {table} SET {sets.format(*[b] * len(columns))} WHERE seq = {a}",
        f"UPDATE {table} SET {sets.format(*[a] * len(columns))} WHERE seq = {b}",
    ]


COLUMNS = (
    *("prev", "digest", "body", "at", "actor_kind", "actor_id", "actor_name"),
    *("verb", "subject", "target", "reason"),
)
ALL = ", ".join(COLUMNS)
CASES: list[tuple[str, list[str], Kind, int | None]] = [
    (
        "edited",
        ["UPDATE audit_entry SET body = replace(body, '\"', '\" ') WHERE seq = 8"],
        Kind.EDITED,
        8,
    ),
    ("removed", ["DELETE FROM audit_entry WHERE seq = 8"], Kind.REMOVED, 8),
    (
        "removed and renumbered",
        [
            "DELETE FROM audit_entry WHERE seq = 8",
            "UPDATE audit_entry SET seq = -seq WHERE seq > 8",
            "UPDATE audit_entry SET seq = -seq - 1 WHERE seq < 0",
        ],
        Kind.REMOVED,
        8,
    ),
    ("reordered", swap("audit_entry", 8, 9, *COLUMNS), Kind.REORDERED, 8),
    (
        "duplicated",
        [
            f"CREATE TABLE again AS SELECT 10000 AS seq, {ALL} FROM audit_entry WHERE seq = 8",
            "UPDATE again SET prev = 'x', digest = 'y'",
            f"INSERT INTO audit_entry (seq, {ALL}) SELECT seq, {ALL} FROM again",
            "DROP TABLE again",
        ],
        Kind.EDITED,
        10_000,
    ),
    (
        "tail cut",
        ["DELETE FROM audit_entry WHERE seq > (SELECT max(seq) - 2 FROM audit_entry)"],
        Kind.TAIL_CUT,
        None,
    ),
    (
        "column edited",
        ["UPDATE audit_entry SET actor_name = 'mallory' WHERE seq = 8"],
        Kind.COLUMN_EDITED,
        8,
    ),
    ("time edited", ["UPDATE audit_entry SET at = 'noon' WHERE seq = 8"], Kind.COLUMN_EDITED, 8),
    ("head removed", ["DELETE FROM audit_head"], Kind.HEAD, None),
    ("head edited", ["UPDATE audit_head SET size = size - 1"], Kind.BAD_SIGNATURE, None),
    ("checkpoints removed", ["DELETE FROM audit_checkpoint"], Kind.CHECKPOINT, None),
    (
        "state edited",
        ["UPDATE proposals_proposal SET state = 'live' WHERE state = 'rejected'"],
        Kind.ROW,
        None,
    ),
    (
        "digest edited",
        ["UPDATE proposals_proposal SET digest = '0' WHERE id = 1"],
        Kind.ROW,
        None,
    ),
    (
        "report edited",
        ["UPDATE proposals_screening SET report = replace(report, 'imports', 'x') WHERE id = 3"],
        Kind.ROW,
        None,
    ),
    ("review edited", ["UPDATE proposals_review SET reason = 'fine'"], Kind.ROW, None),
    (
        "binding edited",
        ["UPDATE proposals_review SET binding = replace(binding, 'demo', 'x')"],
        Kind.ROW,
        None,
    ),
    ("policy edited", ["UPDATE proposals_policyversion SET text = text || ' '"], Kind.ROW, None),
    ("activation edited", ["UPDATE proposals_activation SET kind = 'seed'"], Kind.ROW, None),
    ("target edited", ["UPDATE runs_target SET desired_digest = '0'"], Kind.ROW, None),
    ("rows removed", ["DELETE FROM proposals_review"], Kind.ROW, None),
]


@pytest.mark.parametrize("case", CASES, ids=[c[0] for c in CASES])
def test_what_was_done_is_found(
    told: Site, tmp_path: Path, case: tuple[str, list[str], Kind, int | None]
) -> None:
    _, statements, kind, seq = case
    copy = copy_of(told, tmp_path)
    assert examined(told, copy).problems == []
    damage(copy, *statements)
    problems = examined(told, copy).problems
    assert any(p.kind == kind and seq in {None, p.seq} for p in problems), [
        str(p) for p in problems
    ]
    assert all(p.kind != Kind.TRIGGER for p in problems)
    assert code_of(told, copy) == 1


def test_an_exact_duplicate_is_found(told: Site, tmp_path: Path) -> None:
    """As a table that somebody made anew, without its constraints."""
    copy = copy_of(told, tmp_path)
    damage(
        copy,
        f"CREATE TABLE free AS SELECT seq, {ALL} FROM audit_entry",
        f"INSERT INTO free SELECT seq + 10000, {ALL} FROM free WHERE seq = 8",
        "DROP TABLE audit_entry",
        "ALTER TABLE free RENAME TO audit_entry",
    )
    problems = examined(told, copy).problems
    assert (Kind.DUPLICATED, 10_008) in {(p.kind, p.seq) for p in problems}


def test_dropped_triggers_are_found(told: Site, tmp_path: Path) -> None:
    copy = copy_of(told, tmp_path)
    with sqlite3.connect(copy) as connection:
        connection.execute("DROP TRIGGER audit_entry_delete")
    problems = examined(told, copy).problems
    assert [p.kind for p in problems] == [Kind.TRIGGER]
    assert "audit_entry_delete" in problems[0].message


def test_an_anchor_shows_a_database_that_was_put_back(told: Site, tmp_path: Path) -> None:
    """An older database is whole in itself; whoever kept a later checkpoint sees it."""
    old = copy_of(told, tmp_path)
    with sqlite3.connect(old) as connection:
        last = connection.execute("SELECT max(size) FROM audit_checkpoint").fetchone()[0]
        query = "SELECT note FROM audit_checkpoint WHERE size = ?"
        note = connection.execute(query, [last]).fetchone()[0]
    assert examined(told, old, note).problems == []
    damage(old, f"DELETE FROM audit_entry WHERE seq >= {last}", "DELETE FROM audit_head")
    damage(old, f"DELETE FROM audit_checkpoint WHERE size >= {last}")
    assert Kind.TAIL_CUT in {p.kind for p in examined(told, old, note).problems}


def test_a_database_with_a_write_ahead_log_is_read_and_not_touched(
    told: Site, tmp_path: Path
) -> None:
    copy = copy_of(told, tmp_path)
    writer = sqlite3.connect(copy, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("PRAGMA wal_autocheckpoint = 0")
    writer.execute("DROP TRIGGER audit_entry_update")
    writer.execute("UPDATE audit_entry SET reason = 'only in the log' WHERE seq = 8")

    def state() -> dict[str, Any]:
        return {
            p.name: (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns)
            for p in tmp_path.iterdir()
        }

    before = state()
    assert "copy.sqlite3-wal" in before
    problems = examined(told, copy).problems
    assert (Kind.COLUMN_EDITED, 8) in {(p.kind, p.seq) for p in problems}
    assert state() == before
    writer.close()


def test_a_copy_in_a_folder_that_can_not_be_written_to(told: Site, tmp_path: Path) -> None:
    folder = tmp_path / "fixed"
    folder.mkdir()
    copy = copy_of(told, folder)
    copy.chmod(0o400)
    folder.chmod(0o500)
    assert code_of(told, copy) == 0
    assert [p.name for p in folder.iterdir()] == ["copy.sqlite3"]


Spoil = Callable[[Path], object]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda copy: copy.unlink(),
        lambda copy: copy.write_bytes(b""),
        lambda copy: copy.write_bytes(b"no database at all" * 100),
        lambda copy: copy.write_bytes(copy.read_bytes()[:20_000]),
    ],
    ids=["missing", "empty", "nonsense", "truncated"],
)
def test_what_can_not_be_looked_at_is_no_pass(told: Site, tmp_path: Path, spoil: Spoil) -> None:
    copy = copy_of(told, tmp_path)
    spoil(copy)
    assert code_of(told, copy) == 2


def test_the_key_is_pinned(told: Site, site: Site, tmp_path: Path) -> None:
    copy = copy_of(told, tmp_path)
    assert code_of(site, copy) == 1  # another platform's key
    with pytest.raises(CommandError, match="public-key") as error:
        call_command("verify_audit", database=str(copy), public_key=str(tmp_path / "none"))
    assert error.value.returncode == 2


def test_the_live_log_is_verified_and_told_as_json(told: Site) -> None:
    code, out = told.verify("--json")
    assert code == 0, out
    result = json.loads(out)
    assert (result["ok"], result["key_pinned"], result["problems"]) == (True, True, [])
