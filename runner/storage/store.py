"""The file below the journal: one SQLite database in one folder, held by one runner at a time.

Write-ahead log, `synchronous=FULL`: what `transaction` left behind is on the disk before anything
else happens. The folder is locked with `flock`, which the kernel releases however a runner dies.
What is stored, and what it means, is `runner.storage.journal`'s business.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

DATABASE = "journal.sqlite3"
SCHEMA_VERSION = 2
BUSY_SECONDS = 10.0
_OURS = (sqlite3.IntegrityError, sqlite3.ProgrammingError)  # a mistake of the program, not a disk's
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE measurements (
    purpose TEXT NOT NULL, trial INTEGER NOT NULL, number INTEGER NOT NULL, metric REAL,
    failure TEXT NOT NULL, message TEXT NOT NULL, seconds REAL NOT NULL,
    PRIMARY KEY (purpose, trial, number)
) STRICT;
CREATE TABLE trials (
    number INTEGER PRIMARY KEY, phase TEXT NOT NULL, config TEXT NOT NULL, changes TEXT NOT NULL,
    reason TEXT NOT NULL, mechanism TEXT NOT NULL, digest TEXT NOT NULL, version INTEGER NOT NULL,
    hooks TEXT NOT NULL, metric REAL, failure TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT '', seconds REAL NOT NULL DEFAULT 0, status TEXT,
    best_metric REAL, repeats TEXT NOT NULL DEFAULT '[]', finished_at TEXT,
    report TEXT NOT NULL DEFAULT 'waiting'
) STRICT;
CREATE TABLE states (
    digest TEXT PRIMARY KEY, after_trial INTEGER NOT NULL, state TEXT NOT NULL
) STRICT;
CREATE TABLE steering (after_trial INTEGER PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE drafts (
    draft_id TEXT PRIMARY KEY, after_trial INTEGER NOT NULL UNIQUE, state TEXT NOT NULL,
    draft TEXT, base_commit TEXT NOT NULL DEFAULT '', base_digest TEXT NOT NULL DEFAULT '',
    proposal INTEGER, reason TEXT NOT NULL DEFAULT '', remote TEXT NOT NULL DEFAULT '',
    resubmitted INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE attestations (
    id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL,
    report TEXT NOT NULL DEFAULT 'waiting'
) STRICT;
"""


class JournalError(RuntimeError):
    """The journal can't be used as asked; the message says what to do."""


class JournalClosed(JournalError):
    """The journal was closed while something still wanted to write: the runner is stopping."""


class Store:
    """One locked folder with one database. Safe to use from several threads."""

    def __init__(self, folder: Path, *, committed: Callable[[], None] | None = None) -> None:
        """Open or create. `committed` is called after each commit (tests crash the runner there).

        Raises JournalError if another runner holds the folder, or if it can't be written.
        """
        self.folder = folder
        self.committed = committed
        self._mutex = threading.RLock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalError(
                f"{folder} can't be written ({error}): choose another --out"
            ) from error
        try:
            self._hold()
            self._connection: sqlite3.Connection | None = self._open()
        except BaseException:
            os.close(self._lock)
            raise

    def _hold(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._lock, 20).decode(errors="replace").strip() or "unknown"
            raise JournalError(
                f"another runner (process {holder}) works in {self.folder}: stop it first, "
                "or choose another --out"
            ) from None
        try:
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            raise self._useless(error) from error

    def _open(self) -> sqlite3.Connection:
        path = self.folder / DATABASE
        try:
            connection = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            if found == 0:
                script = f"BEGIN IMMEDIATE;{SCHEMA}PRAGMA user_version={SCHEMA_VERSION};COMMIT;"
                connection.executescript(script)
            elif found != SCHEMA_VERSION:
                raise JournalError(
                    f"{path} was written by another version of the runner (schema {found}, "
                    f"this one knows {SCHEMA_VERSION}): choose another --out"
                )
        except sqlite3.Error as error:
            raise self._useless(error) from error
        return connection

    def _useless(self, error: Exception) -> JournalError:
        """What is wrong with the folder, and what to do."""
        told = str(error)
        if "locked" in told:
            fix = "another program holds it: end that one, and start again"
        elif "malformed" in told or "not a database" in told:
            fix = "its content is broken: choose another --out"
        else:
            fix = "make room, or mend what is wrong with it, and start again"
        return JournalError(
            f"the journal in {self.folder} can't be used ({told}): {fix}; everything up to here is "
            "kept"
        )

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, on the disk when it ends. Transactions nest: the outermost commits."""
        with self._mutex:
            if self._connection is None:
                raise JournalClosed("the journal is closed")
            if self._connection.in_transaction:
                yield self._connection
                return
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                with suppress(sqlite3.Error):  # a full disk may have rolled back by itself
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, _OURS):
                    raise self._useless(error) from error
                raise
        if self.committed is not None:
            self.committed()

    def rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        """The rows that a query gives."""
        with self._mutex:
            if self._connection is None:
                raise JournalClosed("the journal is closed")
            try:
                return self._connection.execute(query, values).fetchall()
            except sqlite3.OperationalError as error:
                raise self._useless(error) from error

    def get(self, key: str, default: Any = None) -> Any:
        """A value of the `meta` table."""
        found = self.rows("SELECT value FROM meta WHERE key = ?", key)
        return json.loads(found[0][0]) if found else default

    def put(self, key: str, value: object) -> None:
        """Store a value in the `meta` table; what is there already costs no write."""
        text = dumps(value)
        known = self.rows("SELECT value FROM meta WHERE key = ?", key)
        if known and known[0][0] == text:
            return
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, text))

    def settle_place(self, *, run_id: str) -> None:
        """Note where this run lives: it may be moved, and goes on in one place only.

        Raises JournalError if this is a copy of a folder that still holds the run.
        """
        here, known = self.folder.resolve(), self.get("place")
        if known is not None and known != str(here):
            original = Path(known) / DATABASE
            mine = (here / DATABASE).stat()
            with suppress(OSError, sqlite3.Error, ValueError, LookupError, TypeError):
                if not os.path.samestat(original.stat(), mine) and _run_in(original) == run_id:
                    raise JournalError(
                        f"{self.folder} is a copy of {known}, where the same run still is: go on "
                        "there, or remove that folder first, or choose another --out"
                    )
        self.put("place", str(here))

    def close(self) -> None:
        """Close the database and let go of the folder. Safe to call twice."""
        with self._mutex:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
                os.close(self._lock)


def _run_in(database: Path) -> object:
    """The run that another journal holds."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=1)) as db:
        found = db.execute("SELECT value FROM meta WHERE key = 'identity'").fetchone()
    return json.loads(found[0])["run_id"]


def dumps(value: object) -> str:
    """JSON without NaN; keys sorted, so that equal values are equal text."""
    return json.dumps(value, sort_keys=True, allow_nan=False)
