"""The judge of the chaos of the loop: an honest history passes, a changed one does not."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from runner.control.local import Local
from runner.interfaces import Outcome
from runner.levels.strategy import HabitPrior
from runner.loop.search import Plan, Search
from runner.storage.journal import Journal, derive
from runner.storage.store import DATABASE
from scripts.chaos_loop_judge import Left, left_by, library, of_trainings, replayed
from scripts.chaos_loop_trouble import OPERATORS
from tests.runner.surface import Counting, SurfaceTask

TRIALS, PARALLEL = 14, 2


class Smooth(SurfaceTask):
    """Rounded, as a script prints it, and without failures."""

    def run(self, config: Any, *, seed: int, progress: Any = None) -> Outcome:
        found = super().run(config, seed=seed).metric
        return Outcome(metric=round(1.0 if found is None else found, 6))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    task = Smooth()
    with closing(Journal(folder)) as journal:
        journal.identify(task=task.name, task_digest=task.digest, seed=3)
        Search(
            journal=journal,
            task=task,
            prior=HabitPrior(),
            control=Local(journal, Counting),
            plan=Plan(trials=TRIALS, count=PARALLEL),
            say=lambda _: None,
        ).run()
    return folder


def judged(folder: Path) -> list[str]:
    left = left_by(folder)
    return replayed(left, {"": Counting}, SurfaceTask.space, parallel=PARALLEL, trials=TRIALS)


def test_an_honest_run_passes(whole: Path) -> None:
    assert judged(whole) == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE trials SET reason = 'another mechanism' WHERE number = 5",
        "UPDATE trials SET changes = (SELECT changes FROM trials WHERE number = 3), "
        "config = (SELECT config FROM trials WHERE number = 3) WHERE number = 4",
        "UPDATE trials SET status = 'discarded', best_metric = 9 WHERE number = "
        "(SELECT MAX(number) FROM trials WHERE status = 'kept')",
        "UPDATE trials SET best_metric = 0.5 WHERE number = 7",
        "UPDATE states SET state = replace(state, '\"proposed\": ', '\"proposed\": 1')",
        "UPDATE meta SET value = replace(value, '\"seed\": 3', '\"seed\": 4') "
        "WHERE key = 'identity'",
    ],
)
def test_a_changed_one_does_not(whole: Path, tmp_path: Path, change: str) -> None:
    shutil.copy(whole / DATABASE, tmp_path)
    with sqlite3.connect(tmp_path / DATABASE) as db:
        assert db.execute(change).rowcount == 1
    assert judged(tmp_path)


def lines(left: Left) -> list[dict[str, Any]]:
    """What the trainings of a run would have written down."""
    found = []
    for entry in left.entries[1:]:
        seed = derive(left.seed, entry.number, "train")
        first = entry.repeats[0] if entry.repeats else entry.metric
        found += [
            {"what": "begin", "seed": seed, "runner": 1},
            {"what": "end", "seed": seed, "runner": 1, "loss": f"{first:.6f}",
             "config": dict(entry.config)},
        ]  # fmt: skip
    for purpose, trial, number, metric in left.measurements:
        word = "repeat" if purpose == "baseline" else purpose
        seed = derive(left.seed, trial, f"{word}/{number}")
        config = dict(left.entries[trial].config)
        found += [
            {"what": "begin", "seed": seed, "runner": 1},
            {"what": "end", "seed": seed, "runner": 1, "loss": f"{metric:.6f}", "config": config},
        ]
    return found


def test_the_trainings_own_list(whole: Path) -> None:
    left = left_by(whole)
    log = lines(left)
    assert all(of_trainings([left], log, kills=0).values())
    one = log[4]
    broken = {
        "lost": log[:4] + log[6:],
        "foreign": [*log, {**one, "seed": 12345}],
        "twice by one runner": [*log, dict(one)],
        "twice without a kill": [*log, {**one, "runner": 2}],
        "another result": [{**row, "loss": "7.000000"} if row is log[5] else row for row in log],
    }
    for what, changed in broken.items():
        assert not all(of_trainings([left], changed, kills=0).values()), what
    assert all(of_trainings([left], broken["twice without a kill"], kills=1).values())
    assert not all(of_trainings([left, left], log, kills=0).values())  # seeds of another run


def test_the_library_is_known_by_its_bytes() -> None:
    found = library(["null", *OPERATORS])
    assert {cls.name for cls in found.values()} == {"null", *OPERATORS}
    assert all(len(digest) == 64 for digest in found)
