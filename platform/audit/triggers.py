"""The triggers that make the log append-only, and the proof that they are in place.

They stop every statement of an application or a database shell. They don't stop somebody who may
drop them: signed heads and checkpoints elsewhere are for that.

SQLite: `INSERT OR REPLACE` gets past UPDATE and DELETE triggers, so inserts are checked against
the last row. PostgreSQL: TRUNCATE needs its own trigger, and ENABLE ALWAYS holds against
`session_replication_role`.
"""

from __future__ import annotations

from django.db.backends.base.base import BaseDatabaseWrapper

ZEROS = "0" * 64

_SQLITE = {
    "audit_entry_update": """CREATE TRIGGER audit_entry_update BEFORE UPDATE ON audit_entry
BEGIN SELECT RAISE(ABORT, 'audit log: entries are never changed'); END""",
    "audit_entry_delete": """CREATE TRIGGER audit_entry_delete BEFORE DELETE ON audit_entry
BEGIN SELECT RAISE(ABORT, 'audit log: entries are never removed'); END""",
    "audit_entry_insert": """CREATE TRIGGER audit_entry_insert BEFORE INSERT ON audit_entry
WHEN NEW.seq IS NOT (SELECT COALESCE(MAX(seq), 0) + 1 FROM audit_entry)
OR NEW.prev IS NOT COALESCE(
    (SELECT digest FROM audit_entry ORDER BY seq DESC LIMIT 1), 'ZEROS')
OR EXISTS (SELECT 1 FROM audit_entry
    WHERE seq = NEW.seq OR prev = NEW.prev OR digest = NEW.digest)
BEGIN SELECT RAISE(ABORT, 'audit log: an entry follows the last one, once'); END""".replace(
        "ZEROS", ZEROS
    ),
    "audit_head_update": """CREATE TRIGGER audit_head_update BEFORE UPDATE ON audit_head
WHEN NEW.id IS NOT 1 OR NEW.size IS NOT OLD.size + 1
OR NEW.hash IS NOT (SELECT digest FROM audit_entry WHERE seq = NEW.size)
BEGIN SELECT RAISE(ABORT, 'audit log: the head moves forward, one entry at a time'); END""",
    "audit_head_delete": """CREATE TRIGGER audit_head_delete BEFORE DELETE ON audit_head
BEGIN SELECT RAISE(ABORT, 'audit log: the head is never removed'); END""",
    "audit_head_insert": """CREATE TRIGGER audit_head_insert BEFORE INSERT ON audit_head
WHEN EXISTS (SELECT 1 FROM audit_head) OR NEW.id IS NOT 1 OR NEW.size IS NOT 1
BEGIN SELECT RAISE(ABORT, 'audit log: there is one head'); END""",
    "audit_checkpoint_update": """CREATE TRIGGER audit_checkpoint_update
BEFORE UPDATE ON audit_checkpoint
BEGIN SELECT RAISE(ABORT, 'audit log: checkpoints are never changed'); END""",
    "audit_checkpoint_delete": """CREATE TRIGGER audit_checkpoint_delete
BEFORE DELETE ON audit_checkpoint
BEGIN SELECT RAISE(ABORT, 'audit log: checkpoints are never removed'); END""",
    "audit_checkpoint_insert": """CREATE TRIGGER audit_checkpoint_insert
BEFORE INSERT ON audit_checkpoint
WHEN NEW.size <= COALESCE((SELECT MAX(size) FROM audit_checkpoint), 0)
OR NEW.size > COALESCE((SELECT size FROM audit_head), 0)
BEGIN SELECT RAISE(ABORT, 'audit log: checkpoints only grow'); END""",
}

_FUNCTIONS = {
    "audit_refuse": """
BEGIN
  RAISE EXCEPTION 'audit log: % of % is refused', TG_OP, TG_TABLE_NAME;
END""",
    "audit_entry_follows": """
DECLARE last_seq bigint; last_digest text;
BEGIN
  EXECUTE format('SELECT seq, digest FROM %I.%I ORDER BY seq DESC LIMIT 1',
    TG_TABLE_SCHEMA, TG_TABLE_NAME) INTO last_seq, last_digest;
  IF NEW.seq IS DISTINCT FROM COALESCE(last_seq, 0) + 1
  OR NEW.prev IS DISTINCT FROM COALESCE(last_digest, 'ZEROS') THEN
    RAISE EXCEPTION 'audit log: an entry follows the last one, once';
  END IF;
  RETURN NEW;
END""".replace("ZEROS", ZEROS),
    "audit_head_moves": """
DECLARE found text; heads bigint;
BEGIN
  EXECUTE format('SELECT digest FROM %I.audit_entry WHERE seq = $1', TG_TABLE_SCHEMA)
    INTO found USING NEW.size;
  IF NEW.id IS DISTINCT FROM 1 OR NEW.hash IS DISTINCT FROM found THEN
    RAISE EXCEPTION 'audit log: the head is the last entry';
  END IF;
  IF TG_OP = 'UPDATE' THEN
    IF NEW.size IS DISTINCT FROM OLD.size + 1 THEN
      RAISE EXCEPTION 'audit log: the head moves forward, one entry at a time';
    END IF;
  ELSE
    EXECUTE format('SELECT count(*) FROM %I.%I', TG_TABLE_SCHEMA, TG_TABLE_NAME) INTO heads;
    IF heads <> 0 OR NEW.size IS DISTINCT FROM 1 THEN
      RAISE EXCEPTION 'audit log: there is one head';
    END IF;
  END IF;
  RETURN NEW;
END""",
    "audit_checkpoint_grows": """
DECLARE newest bigint; head_size bigint;
BEGIN
  EXECUTE format('SELECT max(size) FROM %I.%I', TG_TABLE_SCHEMA, TG_TABLE_NAME) INTO newest;
  EXECUTE format('SELECT size FROM %I.audit_head', TG_TABLE_SCHEMA) INTO head_size;
  IF NEW.size IS NULL OR NEW.size <= COALESCE(newest, 0) OR NEW.size > COALESCE(head_size, 0) THEN
    RAISE EXCEPTION 'audit log: checkpoints only grow';
  END IF;
  RETURN NEW;
END""",
}

# name -> (table, when, function)
_POSTGRES = {
    "audit_entry_change": ("audit_entry", "UPDATE OR DELETE", "ROW", "audit_refuse"),
    "audit_entry_insert": ("audit_entry", "INSERT", "ROW", "audit_entry_follows"),
    "audit_entry_truncate": ("audit_entry", "TRUNCATE", "STATEMENT", "audit_refuse"),
    "audit_head_delete": ("audit_head", "DELETE", "ROW", "audit_refuse"),
    "audit_head_move": ("audit_head", "INSERT OR UPDATE", "ROW", "audit_head_moves"),
    "audit_head_truncate": ("audit_head", "TRUNCATE", "STATEMENT", "audit_refuse"),
    "audit_checkpoint_change": ("audit_checkpoint", "UPDATE OR DELETE", "ROW", "audit_refuse"),
    "audit_checkpoint_insert": ("audit_checkpoint", "INSERT", "ROW", "audit_checkpoint_grows"),
    "audit_checkpoint_truncate": ("audit_checkpoint", "TRUNCATE", "STATEMENT", "audit_refuse"),
}


class UnknownDatabase(RuntimeError):
    """The log can't be kept append-only on this database."""


def _postgres(connection: BaseDatabaseWrapper) -> bool:
    if connection.vendor not in {"sqlite", "postgresql"}:
        raise UnknownDatabase(f"{connection.vendor}: use SQLite or PostgreSQL")
    return connection.vendor == "postgresql"


def install(connection: BaseDatabaseWrapper) -> None:
    """Put all triggers in place, replacing what has their names."""
    remove(connection)
    with connection.cursor() as cursor:
        if not _postgres(connection):
            for statement in _SQLITE.values():
                cursor.execute(statement)
            return
        for name, source in _FUNCTIONS.items():
            cursor.execute(
                f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql "
                f"AS $audit${source}$audit$"
            )
        for name, (table, event, level, function) in _POSTGRES.items():
            cursor.execute(
                f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH {level} "
                f"EXECUTE FUNCTION {function}()"
            )
            cursor.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")


def remove(connection: BaseDatabaseWrapper) -> None:
    """Take the triggers away: for the reverse migration and for tests that empty tables."""
    with connection.cursor() as cursor:
        if not _postgres(connection):
            for name in _SQLITE:
                cursor.execute(f"DROP TRIGGER IF EXISTS {name}")
            return
        for name, (table, *_) in _POSTGRES.items():
            cursor.execute(f"DROP TRIGGER IF EXISTS {name} ON {table}")


def missing(connection: BaseDatabaseWrapper) -> list[str]:
    """Names of triggers that are absent, disabled or not as they should be."""
    with connection.cursor() as cursor:
        if not _postgres(connection):
            cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
            found = dict(cursor.fetchall())
            return [name for name, sql in _SQLITE.items() if found.get(name) != sql]
        cursor.execute(
            "SELECT t.tgname, p.proname, p.prosrc, pg_get_triggerdef(t.oid) FROM pg_trigger t "
            "JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_class c ON c.oid = t.tgrelid "
            "WHERE t.tgenabled = 'A' AND NOT t.tgisinternal AND c.relname = ANY(%s) "
            "AND pg_table_is_visible(c.oid)",
            [sorted({table for table, *_ in _POSTGRES.values()})],
        )
        rows = {name: (function, source, text) for name, function, source, text in cursor}
    return [name for name in _POSTGRES if not _as_it_should_be(name, rows.get(name))]


def _as_it_should_be(name: str, found: tuple[str, str, str] | None) -> bool:
    if found is None:
        return False
    table, event, level, function = _POSTGRES[name]
    real_function, source, definition = found
    events = all(word in definition for word in event.split(" OR "))
    return (
        real_function == function
        and source == _FUNCTIONS[function]
        and events
        and f"FOR EACH {level}" in definition
        and " WHEN " not in definition
        and table in definition
    )
