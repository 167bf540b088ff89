"""What real databases hold: append-only triggers, and writers at once that never fork."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.audit.conftest import Site

ENTRY = (
    "INSERT {how} INTO audit_entry (seq, prev, digest, body, at, actor_kind, actor_id, "
    "actor_name, verb, subject, target, reason) SELECT {seq}, {prev}, {digest}, body, at, "
    "actor_kind, actor_id, actor_name, verb, subject, target, reason FROM audit_entry "
    "WHERE seq = 1"
)
LAST = "(SELECT digest FROM audit_entry ORDER BY seq DESC LIMIT 1)"
NEXT = "(SELECT max(seq) + 1 FROM audit_entry)"
NEW = f"'{'f' * 64}'"
FORBIDDEN = [
    "UPDATE audit_entry SET reason = 'x' WHERE seq = 2",
    "UPDATE audit_entry SET seq = 10000 WHERE seq = 2",
    "DELETE FROM audit_entry WHERE seq = 2",
    "DELETE FROM audit_entry",
    "UPDATE audit_head SET size = size - 1",
    "UPDATE audit_head SET size = size + 1",
    "UPDATE audit_head SET hash = 'x'",
    "DELETE FROM audit_head",
    "UPDATE audit_checkpoint SET note = 'x'",
    "DELETE FROM audit_checkpoint",
    ENTRY.format(how="", seq=2, prev=LAST, digest=NEW),
    ENTRY.format(how="", seq=10_000, prev=LAST, digest=NEW),
    ENTRY.format(how="", seq=0, prev=LAST, digest=NEW),
    ENTRY.format(how="", seq=NEXT, prev=NEW, digest=NEW),
    ENTRY.format(how="", seq=NEXT, prev="prev", digest=NEW),
    ENTRY.format(how="", seq=NEXT, prev=LAST, digest="digest"),
    "INSERT INTO audit_checkpoint (size, root, frontier, note, at) "
    "SELECT 1, root, frontier, note, at FROM audit_checkpoint LIMIT 1",
    "INSERT INTO audit_checkpoint (size, root, frontier, note, at) "
    "SELECT 100000, root, frontier, note, at FROM audit_checkpoint LIMIT 1",
    "INSERT INTO audit_head (id, size, hash, root, frontier, key, signature) "
    "SELECT 2, size, hash, root, frontier, key, signature FROM audit_head",
]
REPLACING = [
    ENTRY.format(how="OR REPLACE", seq=2, prev=LAST, digest=NEW),
    ENTRY.format(how="OR REPLACE", seq=2, prev="prev", digest="digest"),
    ENTRY.format(how="OR REPLACE", seq=NEXT, prev="prev", digest=NEW),
    ENTRY.format(how="OR REPLACE", seq=NEXT, prev=LAST, digest="digest"),
    ENTRY.format(how="OR REPLACE", seq="NULL", prev=LAST, digest=NEW),
    ENTRY.format(how="OR REPLACE", seq=NEXT, prev="NULL", digest=NEW),
    ENTRY.format(how="OR IGNORE", seq=2, prev="prev", digest=NEW),
    "REPLACE INTO audit_entry SELECT * FROM audit_entry WHERE seq = 2",
    "UPDATE OR REPLACE audit_entry SET seq = 3 WHERE seq = 2",
    "INSERT INTO audit_entry SELECT * FROM audit_entry WHERE seq = 2 "
    "ON CONFLICT (seq) DO UPDATE SET reason = 'x'",
    "INSERT OR REPLACE INTO audit_head SELECT * FROM audit_head",
    "INSERT OR REPLACE INTO audit_checkpoint SELECT * FROM audit_checkpoint LIMIT 1",
]


@pytest.fixture
def sqlite(site: Site, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    copy = tmp_path / "copy.sqlite3"
    shutil.copyfile(site.database, copy)
    connection = sqlite3.connect(copy, isolation_level=None)
    yield connection
    connection.close()


def stored(connection: sqlite3.Connection) -> list[object]:
    tables = ("audit_entry", "audit_head", "audit_checkpoint")
    return [connection.execute(f"SELECT * FROM {t} ORDER BY 1").fetchall() for t in tables]


@pytest.mark.parametrize("statement", FORBIDDEN + REPLACING)
def test_sqlite_refuses_to_change_the_log(sqlite: sqlite3.Connection, statement: str) -> None:
    before = stored(sqlite)
    with pytest.raises(sqlite3.IntegrityError, match="audit log"):
        sqlite.execute(statement)
    assert stored(sqlite) == before


@pytest.mark.parametrize("statement", FORBIDDEN)
@pytest.mark.parametrize("role", ["origin", "replica"])
def test_postgres_refuses_to_change_the_log(postgres_site: Site, statement: str, role: str) -> None:
    with psycopg.connect(postgres_site.url) as connection:
        connection.execute(f"SET session_replication_role = {role}")
        refused = (psycopg.errors.RaiseException, psycopg.errors.UniqueViolation)
        with pytest.raises(refused, match=r"audit log|audit_entry_digest"):
            connection.execute(statement)


@pytest.mark.parametrize("table", ["audit_entry", "audit_head", "audit_checkpoint"])
def test_postgres_refuses_to_truncate_the_log(postgres_site: Site, table: str) -> None:
    with psycopg.connect(postgres_site.url) as connection:
        connection.execute("SET session_replication_role = replica")
        with pytest.raises(psycopg.errors.RaiseException, match="TRUNCATE"):
            connection.execute(f"TRUNCATE {table} CASCADE")


def test_eight_writers_at_once_never_fork_on_sqlite(site: Site, sqlite: sqlite3.Connection) -> None:
    rows = sqlite.execute("SELECT count(*), max(seq), count(DISTINCT prev) FROM audit_entry")
    assert rows.fetchone() == (120, 120, 120)
    code, out = site.verify()
    assert (code, "120 entries" in out) == (0, True), out


def test_eight_writers_at_once_never_fork_on_postgres(postgres_site: Site) -> None:
    with psycopg.connect(postgres_site.url) as connection:
        query = "SELECT count(*), max(seq), count(DISTINCT prev) FROM audit_entry"
        assert connection.execute(query).fetchone() == (120, 120, 120)
    code, out = postgres_site.verify()
    assert (code, "120 entries" in out) == (0, True), out


def test_of_eight_at_once_one_activates_on_postgres(postgres: str, tmp_path: Path) -> None:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE DATABASE race")
    site = Site(tmp_path, f"{postgres.rpartition('/')[0]}/race")
    told = json.loads(site.run("tests/proposals/racer.py", "activate").splitlines()[-1])
    assert told["results"] == [*["already_used"] * 7, "done"]
    assert told["log"] == []


def test_a_disabled_trigger_on_postgres_is_seen_and_stops_the_log(postgres_site: Site) -> None:
    table = "ALTER TABLE audit_entry {} TRIGGER audit_entry_truncate"
    with psycopg.connect(postgres_site.url, autocommit=True) as connection:
        connection.execute(table.format("ENABLE"))  # no longer ALWAYS: a replica may truncate
        try:
            key = ("--public-key", str(postgres_site.public_key))
            code, out = postgres_site.verify("--database", postgres_site.url, *key)
            assert (code, "trigger: audit_entry_truncate" in out) == (1, True), out
            appender = str(Path(__file__).with_name("appender.py"))
            _, err = postgres_site.python(appender, "1", "1").communicate(timeout=240)
            assert "LogBroken" in err
        finally:
            connection.execute(table.format("ENABLE ALWAYS"))
    assert postgres_site.verify()[0] == 0


def test_the_system_check_sees_a_missing_trigger(site: Site, tmp_path: Path) -> None:
    damaged = Site(tmp_path)
    shutil.copytree(site.var, tmp_path, dirs_exist_ok=True)
    script = (
        "import django; django.setup()\n"
        "from audit.checks import append_only\n"
        "print([m.id for m in append_only(['default'])])"
    )
    assert damaged.run("-c", script).strip() == "[]"
    with sqlite3.connect(damaged.database) as connection:
        connection.execute("DROP TRIGGER audit_entry_insert")
    assert damaged.run("-c", script).strip() == "['audit.E002']"
