"""A runner killed anywhere loses no trial and repeats none: interrupted equals uninterrupted."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runner.control.local import Local
from runner.interfaces import Steering
from runner.loop.decisions import Running
from runner.loop.search import Plan, Search
from runner.storage.journal import Journal
from sandbox.errors import InfrastructureError
from sandbox.mechanism import View
from tests.runner.surface import Counting, SurfaceTask, WalkPrior
from tests.runner.waiting import until

ROOT = Path(__file__).parents[3]
TRIALS = 12


class Crash(BaseException):
    """As good as kill -9: nothing after it runs, and nothing handles it."""


def steer(view: View, current: Steering) -> Steering:
    """Freeze what the last trial changed; the trace decides."""
    name = next(iter(view.trace[-1].changes), "BATCH")
    return Steering(frozen=frozenset({name}), guidance=f"after {len(view.trace)}")


def search_in(
    folder: Path,
    *,
    crash_at: int = -1,
    seed: int = 2,
    task: SurfaceTask | None = None,
    count: int = 1,
    control: Callable[[Journal], Local] = lambda journal: Local(journal, Counting),
) -> tuple[int, SurfaceTask]:
    """Run to the end, or to a crash right after the commit of that number."""
    commits = 0

    def committed() -> None:
        nonlocal commits
        commits += 1
        if commits == crash_at:
            raise Crash

    task = task or SurfaceTask()
    journal = Journal(folder, committed=committed)
    try:
        journal.identify(task=task.name, task_digest=task.digest, seed=seed)
        Search(
            journal=journal,
            task=task,
            prior=WalkPrior(errors=True),
            control=control(journal),
            plan=Plan(trials=TRIALS, count=count),
            say=lambda _: None,
            steer=steer,
        ).run()
    finally:
        journal.close()
    return commits, task


def history(folder: Path) -> list[tuple[Any, ...]]:
    """All that must not depend on interruptions."""
    with sqlite3.connect(f"file:{folder}/journal.sqlite3?mode=ro", uri=True) as db:
        trials = db.execute(
            "SELECT number, phase, config, changes, reason, mechanism, digest, hooks, metric, "
            "failure, message, status, best_metric, repeats FROM trials ORDER BY number"
        ).fetchall()
        rest = db.execute("SELECT after_trial, value FROM steering ORDER BY 1").fetchall()
        rest += db.execute("SELECT * FROM states ORDER BY 1").fetchall()
        rest += db.execute(
            "SELECT purpose, trial, number, metric FROM measurements ORDER BY 1, 2, 3"
        ).fetchall()
        keys = "('noise', 'failures', 'rules')"
        rest += db.execute(f"SELECT value FROM meta WHERE key IN {keys} ORDER BY key").fetchall()
    return trials + rest


def test_an_uninterrupted_run_is_complete(tmp_path: Path) -> None:
    search_in(tmp_path)
    rows = history(tmp_path)[: TRIALS + 1]
    assert [row[0] for row in rows] == list(range(TRIALS + 1))
    assert {row[1] for row in rows} == {"decided"}
    statuses = {row[11] for row in rows}
    assert statuses == {"kept", "discarded", "failed"}
    assert {"constraint", "no_candidate"} <= {row[9] for row in rows}  # the prior did its worst


def test_a_crash_after_every_single_commit_changes_nothing(tmp_path: Path) -> None:
    commits, _ = search_in(tmp_path / "whole")
    whole = history(tmp_path / "whole")
    assert commits > 3 * TRIALS
    for crash_at in range(1, commits + 1):
        folder = tmp_path / str(crash_at)
        trained: list[Any] = []
        with pytest.raises(Crash):
            search_in(folder, crash_at=crash_at, task=(task := SurfaceTask()))
        trained += task.trained
        _, task = search_in(folder)
        trained += task.trained
        assert history(folder) == whole, f"crash after commit {crash_at}"
        again = len(trained) - len({repr(t) for t in trained})
        assert again <= 1, f"crash after commit {crash_at}: {again} trainings repeated"


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    crashes=st.lists(st.integers(1, 30), max_size=8),
    count=st.integers(1, 3),
)
@example(seed=42, crashes=[], count=1)
def test_any_number_of_crashes_changes_nothing(seed: int, crashes: list[int], count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        search_in(folder / "whole", seed=seed, count=count)
        for crash_at in crashes:
            try:
                search_in(folder / "hit", crash_at=crash_at, seed=seed, count=count)
            except Crash:
                continue
        search_in(folder / "hit", seed=seed, count=count)
        assert history(folder / "hit") == history(folder / "whole")


class Uneven(SurfaceTask):
    """Trainings that end in another order than they began in."""

    def __init__(self, order: int) -> None:
        super().__init__()
        self.order = order

    def run(self, config: Any, *, seed: int, progress: Any = None) -> Any:
        time.sleep(random.Random(f"{self.order}/{seed}").uniform(0, 0.02))
        return super().run(config, seed=seed, progress=progress)


@settings(max_examples=3, deadline=None)
@given(
    orders=st.lists(st.integers(0, 99), min_size=2, max_size=2),
    crash_at=st.integers(5, 60),
    count=st.sampled_from([3, TRIALS + 4]),
)
@example(orders=[1, 2], crash_at=20, count=TRIALS + 4)  # more at once than there are trials
def test_decisions_do_not_depend_on_who_ends_first(
    orders: list[int], crash_at: int, count: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        search_in(folder / "whole", count=count, task=Uneven(orders[0]))
        with suppress(Crash):
            search_in(folder / "hit", count=count, task=Uneven(orders[1]), crash_at=crash_at)
        search_in(folder / "hit", count=count, task=Uneven(orders[0]))
        assert history(folder / "hit") == history(folder / "whole")


class Dying(Local):
    """A worker that is killed once in each of some hooks, as if from outside."""

    def __init__(self, journal: Journal, dies_in: list[tuple[str, int]]) -> None:
        super().__init__(journal, Counting)
        self.left = list(dies_in)

    def _start(self, state: Any) -> Running:
        running = super()._start(state)
        host, left = running.host, self.left

        def dying(hook: str) -> Any:
            call = getattr(host, hook)

            def asked(*given: Any, **named: Any) -> Any:
                answer = call(*given, **named)  # it has changed its state already
                trial = given[0].number if hook != "propose" else len(given[0].trace)
                if (hook, trial) in left:
                    left.remove((hook, trial))
                    raise InfrastructureError("somebody killed it")
                return answer

            return asked

        for hook in ("propose", "accept", "observe"):
            setattr(host, hook, dying(hook))
        return running


@settings(max_examples=3, deadline=None)
@example(deaths={("propose", 5), ("accept", 5), ("observe", 5)}, count=1)
@example(deaths={("observe", number) for number in range(1, TRIALS + 1)}, count=1)
@given(
    deaths=st.sets(
        st.tuples(st.sampled_from(["propose", "accept", "observe"]), st.integers(1, TRIALS)),
        max_size=6,
    ),
    count=st.integers(1, 3),
)
def test_a_worker_that_dies_in_any_hook_changes_nothing(
    deaths: set[tuple[str, int]], count: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        search_in(folder / "whole", count=count)
        left = sorted(deaths)
        for _ in range(1 + len(left)):
            with suppress(InfrastructureError):  # three in one trial: it pauses, and goes on
                search_in(folder / "hit", count=count, control=lambda j: Dying(j, left))
                break
        rows = [history(folder / name) for name in ("whole", "hit")]
        whole, hit = ([(*row[:7], *row[8:]) if len(row) > 8 else row for row in h] for h in rows)
        assert hit == whole  # but for the hooks, which count calls


PROGRAM = """
import sys
from pathlib import Path
from tests.runner.loop.test_resume import search_in
from tests.runner.surface import SurfaceTask
search_in(Path(sys.argv[1]), task=SurfaceTask(subprocess=True))
"""


def written(folder: Path) -> list[tuple[str, int, int]]:
    """What lies on the disk of a journal, as it is now."""
    files = sorted(folder.glob("journal.sqlite3*"))
    with suppress(FileNotFoundError):  # one that ended removes its log
        return [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return []


def until_it_writes(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Or has ended. Before it only loads its modules, however long that takes here."""
    before = written(folder)
    until(lambda: written(folder) != before or process.poll() is not None)


def test_a_real_kill_at_random_moments(tmp_path: Path) -> None:
    search_in(tmp_path / "whole")
    whole = history(tmp_path / "whole")
    folder = tmp_path / "hit"
    draw = random.Random()
    kills = 0
    for _ in range(40):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}"},
        )
        if kills < 8:
            until_it_writes(process, folder)
            time.sleep(draw.uniform(0, 0.5))
            process.send_signal(signal.SIGKILL)
        code = process.wait(120)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
    assert kills > 0
    assert history(folder) == whole
