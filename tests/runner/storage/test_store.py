"""The file below the journal, where the host misbehaves: locked, full, torn, broken, copied, moved.
Always JournalError with what to do, and never less than what was committed."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.storage import store
from runner.storage.journal import Entry, Journal, Phase
from runner.storage.store import DATABASE, JournalError, Store

TASK = {"task": "surface", "task_digest": "5" * 64, "seed": 1}


def planned(number: int, *, text: str = "") -> Entry:
    return Entry(number=number, phase=Phase.PLANNED, config={}, changes={}, reason=text)


def numbers(journal: Journal) -> list[int]:
    return [entry.number for entry in journal.pending()]


def test_a_locked_journal_is_said_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BUSY_SECONDS", 0.05)
    journal = Journal(tmp_path)
    journal.plan([planned(1)], state=None)
    with closing(sqlite3.connect(tmp_path / DATABASE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="another program holds it"):
            journal.plan([planned(2)], state=None)
        assert numbers(journal) == [1]  # reading goes on
    journal.plan([planned(2)], state=None)
    assert numbers(journal) == [1, 2]


def test_a_full_disk_is_said_so_and_nothing_is_half_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.plan([planned(1)], state=None)
    (pages,) = journal.store.rows("PRAGMA page_count")[0]
    journal.store.rows(f"PRAGMA max_page_count={pages}")
    with pytest.raises(JournalError, match=r"full.*make room"):
        journal.plan([planned(2), planned(3, text="x" * 50_000)], state={"a": 1})
    assert numbers(journal) == [1]
    journal.store.rows("PRAGMA max_page_count=100000")
    journal.plan([planned(2), planned(3, text="x" * 50_000)], state={"a": 1})
    assert numbers(journal) == [1, 2, 3]


def test_a_mistake_of_the_program_is_none_of_the_disk(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.plan([planned(1)], state=None)
    with pytest.raises(sqlite3.IntegrityError):
        journal.plan([planned(2), planned(1)], state=None)
    assert numbers(journal) == [1]


def test_no_room_for_the_lock_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.os, "pwrite", full)
    with pytest.raises(JournalError, match=r"No space.*make room"):
        Store(tmp_path)
    monkeypatch.undo()
    Store(tmp_path).close()  # nothing is held


def test_broken_bytes_are_said_so(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"no database at all" * 100)
    with pytest.raises(JournalError, match="broken: choose another --out"):
        Store(tmp_path)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a killed runner leaves behind: 30 commits, none of them in the main file yet."""
    folder, left = (tmp_path_factory.mktemp(name) for name in ("run", "left"))
    journal = Journal(folder)
    for number in range(1, 31):
        journal.plan([planned(number, text="x" * 300)], state={"at": number})
    for suffix in ("", "-wal"):
        shutil.copy(folder / f"{DATABASE}{suffix}", left)
    journal.close()
    return left


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 1), garbage=st.binary(max_size=3000))
def test_a_log_that_ends_anywhere_is_an_earlier_state_of_itself(
    killed: Path, share: float, garbage: bytes
) -> None:
    log = (killed / f"{DATABASE}-wal").read_bytes()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(killed / DATABASE, folder)
        cut = int(len(log) * share)
        (folder / f"{DATABASE}-wal").write_bytes(log[:cut] + garbage)
        with closing(Journal(folder)) as journal:
            found = numbers(journal)
            assert found == list(range(1, len(found) + 1))
            assert journal.state_of("") == ({"at": len(found)} if found else None)
            assert len(found) == 30 or cut < len(log)
            journal.plan([planned(len(found) + 1)], state=None)


def test_a_copy_of_a_run_that_is_still_there_does_not_run(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with closing(Journal(one)) as journal:
        journal.identify(**TASK)
        shutil.copytree(one, two)
    with closing(Journal(two)) as copy, pytest.raises(JournalError, match=r"is a copy of .*one"):
        copy.identify(**TASK)
    with closing(Journal(one)) as journal:
        journal.identify(**TASK)  # the original goes on
    shutil.rmtree(one)
    with closing(Journal(two)) as moved:
        moved.identify(**TASK)  # what is left is the run
    shutil.copytree(two, one)
    with closing(Journal(one)) as copy, pytest.raises(JournalError, match=r"is a copy of .*two"):
        copy.identify(**TASK)


def test_a_run_may_be_moved_and_seen_through_links(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "one")) as journal:
        journal.identify(**TASK)
        run_id = journal.run_id
    os.rename(tmp_path / "one", tmp_path / "two")
    (tmp_path / "one").symlink_to(tmp_path / "two")
    for folder in (tmp_path / "two", tmp_path / "one"):
        with closing(Journal(folder)) as journal:
            journal.identify(**TASK)
            assert journal.run_id == run_id
    (tmp_path / "one").unlink()
    with closing(Journal(tmp_path / "one")) as another:  # another run where it once was
        another.identify(**TASK)
    with closing(Journal(tmp_path / "two")) as journal:
        journal.identify(**TASK)
