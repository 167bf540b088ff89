"""Memory: other runs of the same task are found, labelled, bounded, kept over restarts; none of it
gets into this run's own trace."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
import uuid
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.control.local import Local
from runner.control.platform_client import Unreachable
from runner.loop.measurements import Host, Measurements
from runner.loop.memory import Remembered, host_of, in_folder, remember, selected
from runner.loop.search import Plan, Search
from runner.protocol import MEMORY_TRIALS, Memory, MemoryRun
from runner.storage.journal import Journal
from runner.storage.store import DATABASE, JournalError
from tests.runner.surface import SurfaceTask, WalkPrior

HERE = Host(key="1" * 64, label="here")
THERE = Host(key="2" * 64, label="there")


def run_in(folder: Path, *, host: Host = HERE, seed: int = 1, trials: int = 3) -> str:
    """A whole run; its id."""
    journal, task = Journal(folder), SurfaceTask()
    journal.identify(task=task.name, task_digest=task.digest, seed=seed)
    Measurements(journal).set_host(host)
    Search(
        journal=journal,
        task=task,
        prior=WalkPrior(),
        control=Local(journal),
        plan=Plan(trials=trials),
        say=lambda _: None,
    ).run()
    run_id = journal.run_id
    journal.close()
    return run_id


def begun(folder: Path, task: Any = None) -> Journal:
    journal, task = Journal(folder), task or SurfaceTask()
    journal.identify(task=task.name, task_digest=task.digest, seed=9)
    return journal


def asked(journal: Journal, folder: Path | None, ask: Any = None) -> Remembered:
    return remember(
        journal,
        task_digest=SurfaceTask.digest,
        host=HERE,
        folder=folder,
        ask_platform=ask,
        unreachable=(Unreachable,),
    )


def a_run(**more: Any) -> MemoryRun:
    return MemoryRun(
        **{
            "run_id": str(uuid.uuid4()),
            "runner": "gpu-2",
            "host_key": HERE.key,
            "host": "elsewhere",
            "started_at": datetime(2026, 1, 1, tzinfo=UTC),
            "metric": "loss",
            "minimize": True,
            "sigma": 0.1,
            "baseline": [1.0, 2.0],
            "trials_in_all": 1,
            **more,
        }
    )


def test_runs_beside_are_found_and_labelled(tmp_path: Path) -> None:
    one = run_in(tmp_path / "one")
    two = run_in(tmp_path / "two", host=THERE, seed=2)
    found = asked(begun(tmp_path / "mine"), tmp_path)
    assert [(r.run_id, r.same_host, r.host) for r in found.runs] == [
        (two, False, "there"),
        (one, True, "here"),
    ]
    assert [len(r.trials) for r in found.runs] == [4, 4]
    assert found.runs[0].trials[0].measurements == 3
    assert [b.run_id for b in found.baselines] == [one]  # noise of another host is not ours
    assert "2 run(s)" in found.told


def test_another_task_is_not_remembered_and_what_cannot_be_read_is_counted(tmp_path: Path) -> None:
    run_in(tmp_path / "one")
    with sqlite3.connect(tmp_path / "one" / DATABASE) as db:
        identity = json.loads(
            db.execute("SELECT value FROM meta WHERE key='identity'").fetchone()[0]
        )
        identity["task_digest"] = "6" * 64
        db.execute("UPDATE meta SET value=? WHERE key='identity'", (json.dumps(identity),))
    for name, content in (("broken", b"no database"), ("empty", b"")):
        (tmp_path / name).mkdir()
        (tmp_path / name / DATABASE).write_bytes(content)
    (tmp_path / "link").symlink_to(tmp_path / "one")
    found, skipped = in_folder(tmp_path, task_digest=SurfaceTask.digest, run_id="x")
    assert found == []
    assert {text.split(":")[0] for text in skipped} == {"broken", "empty"}


def test_a_journal_without_its_baseline_is_counted_and_stops_nobody(tmp_path: Path) -> None:
    run_in(tmp_path / "one")
    with sqlite3.connect(tmp_path / "one" / DATABASE) as db:
        db.execute("DELETE FROM trials")
    found, unread = in_folder(tmp_path, task_digest=SurfaceTask.digest, run_id="x")
    assert (found, unread) == ([], ["one: a journal without its baseline"])


def read_all(folder: Path) -> tuple[list[str], list[str]]:
    found, unread = in_folder(folder, task_digest=SurfaceTask.digest, run_id="x")
    return [run.run_id for run in found], unread


def changed(database: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(database) as db:
        assert db.execute(statement, values).rowcount


META = "UPDATE meta SET value = ? WHERE key = ?"
NAMED = f'{{"task_digest": "{SurfaceTask.digest}", "run_id": "R", "started_at": "T"}}'


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        (META, ("null", "identity")),
        (META, ("[]", "identity")),
        (META, ("{", "noise")),
        (META, ("[" * 100_000, "noise")),
        (META, ("7", "noise")),
        (META, ("[]", "run_report")),
        ("DELETE FROM meta WHERE key = ?", ("run_report",)),
        (META, (f'"{"x" * 2_000_000}"', "host")),
        (META, (NAMED.replace("T", "2026-01-01T00:00:00"), "identity")),  # without a zone
        (META, (NAMED.replace("R", "no id").replace("T", "2026-01-01T00:00:00Z"), "identity")),
        ("UPDATE trials SET config = ? WHERE number = 1", ("nonsense",)),
        ("UPDATE trials SET finished_at = ? WHERE number = 1", ("yesterday",)),
        ("UPDATE trials SET repeats = ? WHERE number = 0", ("[1e999]",)),
        ("UPDATE trials SET seconds = ? WHERE number = 1", (-1.0,)),
        ("UPDATE trials SET status = ? WHERE number = 1", ("splendid",)),
        ("UPDATE trials SET phase = ? WHERE number = 0", ("planned",)),
    ],
)
def test_what_no_runner_writes_is_named_and_stops_nobody(
    tmp_path: Path, statement: str, values: tuple[object, ...]
) -> None:
    good, _ = run_in(tmp_path / "good"), run_in(tmp_path / "odd", seed=2)
    changed(tmp_path / "odd" / DATABASE, statement, *values)
    found, unread = read_all(tmp_path)
    assert found[:1] == [good] or statement == META  # another task's, where the identity is lost
    assert [text.split(":")[0] for text in unread] == ["odd"]
    journal = begun(tmp_path / "mine")
    assert "odd" in asked(journal, tmp_path).told


@settings(max_examples=25, deadline=None)
@given(places=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=40)), max_size=8))
def test_a_folder_whose_bytes_rot_stops_nobody(
    a_whole_run: Path, places: list[tuple[float, bytes]]
) -> None:
    whole = a_whole_run.read_bytes()
    with tempfile.TemporaryDirectory() as name:
        rotten = bytearray(whole)
        for share, data in places:
            at = int(share * len(whole))
            rotten[at : at + len(data)] = data
        (Path(name) / "run").mkdir()
        (Path(name) / "run" / DATABASE).write_bytes(rotten)
        found, unread = read_all(Path(name))  # raises nothing
        assert len(found) + len(unread) <= 1


@pytest.fixture(scope="module")
def a_whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    run_in(folder)
    return folder / DATABASE


def test_a_copied_folder_counts_once_and_the_longer_one(tmp_path: Path) -> None:
    run_id = run_in(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "backup")
    changed(tmp_path / "backup" / DATABASE, "DELETE FROM trials WHERE number = 3")
    found, unread = in_folder(tmp_path, task_digest=SurfaceTask.digest, run_id="x")
    assert [(run.run_id, run.trials_in_all) for run in found] == [(run_id, 4)]
    assert not unread


def test_a_run_that_is_being_written_is_read_as_it_stands(tmp_path: Path) -> None:
    run_id = run_in(tmp_path / "one")
    other = Journal(tmp_path / "one")
    with other.store.transaction() as db:  # in the middle of a write, and not to be disturbed
        db.execute("DELETE FROM trials WHERE number > 1")
        found, unread = in_folder(tmp_path, task_digest=SurfaceTask.digest, run_id="x")
    assert [(run.run_id, run.trials_in_all) for run in found] == [(run_id, 4)]
    assert not unread
    other.close()


def test_of_a_huge_run_only_what_is_worth_it_is_read(tmp_path: Path) -> None:
    run_in(tmp_path / "one")
    columns = "phase, config, changes, reason, mechanism, digest, version, hooks, status"
    with sqlite3.connect(tmp_path / "one" / DATABASE) as db:
        db.execute(
            f"WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 20009) "
            f"INSERT INTO trials (number, {columns}) SELECT i, 'decided', '{{}}', '{{}}', '', "
            "'', '', 0, '{}', CASE i % 1000 WHEN 0 THEN 'kept' ELSE 'discarded' END FROM n"
        )
    (run,), _ = in_folder(tmp_path, task_digest=SurfaceTask.digest, run_id="x")
    assert run.trials_in_all == 20_004
    numbers = [trial.number for trial in run.trials]
    assert len(numbers) == MEMORY_TRIALS
    assert {0, 1000, 20_000, 20_009} <= set(numbers)


def test_the_platform_is_asked_and_a_run_counts_once(tmp_path: Path) -> None:
    one = run_in(tmp_path / "one")
    other = a_run()
    journal = begun(tmp_path / "mine")
    own = a_run(run_id=journal.run_id)
    found = asked(journal, tmp_path, lambda: Memory(runs=[a_run(run_id=one), other, own]))
    assert [(r.run_id, r.source) for r in found.runs] == [
        (one, "folder"),
        (other.run_id, "platform"),
    ]
    assert {b.metrics for b in found.baselines} >= {(1.0, 2.0)}


def test_what_was_found_stays_and_what_was_out_of_reach_is_asked_again(tmp_path: Path) -> None:
    def down() -> Memory:
        raise Unreachable("nobody answers")

    journal = begun(tmp_path / "mine")
    assert "could not be asked: nobody answers" in asked(journal, tmp_path, down).told
    first = a_run()
    assert len(asked(journal, tmp_path, lambda: Memory(runs=[first])).runs) == 1
    run_in(tmp_path / "later")
    again = asked(journal, tmp_path, down)  # a resumed run goes on with the same
    assert [r.run_id for r in again.runs] == [first.run_id]


def test_without_memory_nothing_is_looked_at(tmp_path: Path) -> None:
    run_in(tmp_path / "one")
    assert asked(begun(tmp_path / "mine"), None) == Remembered()


def test_a_run_goes_on_where_it_was_measured_and_nowhere_else(tmp_path: Path) -> None:
    measurements = Measurements(begun(tmp_path))
    measurements.set_host(HERE)
    measurements.set_host(HERE)
    with pytest.raises(JournalError, match="measured on here, this is there"):
        measurements.set_host(THERE)
    facts = {"cpu": "c", "cores": 2}
    one = host_of(facts, parallel=1)
    assert one == host_of(dict(facts), parallel=1)
    assert one.key != host_of(facts, parallel=2).key
    assert "cores 2" in one.label


@given(st.lists(st.sampled_from(["kept", "discarded", "failed"]), max_size=300))
def test_a_selection_is_bounded_and_keeps_what_was_kept(statuses: list[str]) -> None:
    rows = [SimpleNamespace(number=0, status="kept")]
    rows += [SimpleNamespace(number=i, status=s) for i, s in enumerate(statuses, start=1)]
    chosen = selected(rows)
    assert len(chosen) == min(len(rows), MEMORY_TRIALS)
    assert chosen[0].number == 0
    assert [r.number for r in chosen] == sorted({r.number for r in chosen})
    kept = sum(r.status == "kept" for r in rows)
    assert sum(r.status == "kept" for r in chosen) == min(kept, MEMORY_TRIALS)
