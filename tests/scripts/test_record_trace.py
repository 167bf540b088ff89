"""A run of the null mechanism becomes a trace of the replay; whatever else it is, is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from runner.control.local import Local
from runner.gpt.space import SPACE
from runner.interfaces import Outcome
from runner.loop.search import Plan, Search
from runner.storage.journal import Journal
from runner.storage.store import DATABASE
from sandbox.mechanism import Candidate, Config, View
from sandbox.traces import _read

ROOT = Path(__file__).resolve().parents[2]


class Quick:
    """The gpt task's space with a formula for its trainer."""

    name, metric, minimize, space = "gpt", "val_bpb", True, SPACE
    description, digest = "A formula in the space of the gpt task.", "6" * 64

    def host(self) -> dict[str, Any]:
        return {"cpu": "test"}

    def run(self, config: Config, **_: Any) -> Outcome:
        return Outcome(metric=3.0 + float(config["MATRIX_LR"]), seconds=0.129)


class Halving:
    """Halves one rate, and now and then leaves the space."""

    label = "halving (test)"

    def ask(self, view: View, guidance: str, count: int) -> list[Candidate]:
        step = len(view.trace)
        change = {"TOTAL_BATCH_SIZE": 2**20} if step == 2 else {"MATRIX_LR": 0.02 / 2**step}
        return [Candidate(changes=change)] * count


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, writing elsewhere."""
    spec = importlib.util.spec_from_file_location("recording", ROOT / "scripts/record_trace.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "traces").mkdir()
    monkeypatch.setattr(module, "FOLDER", tmp_path / "traces")
    return module


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return run_in(tmp_path / "run", Quick())


def run_in(folder: Path, task: Quick) -> Path:
    journal = Journal(folder)
    journal.identify(task=task.name, task_digest=task.digest, seed=3)
    Search(
        journal=journal,
        task=task,
        prior=Halving(),
        control=Local(journal),
        plan=Plan(trials=4),
        say=lambda _: None,
    ).run()
    journal.close()
    return folder


def edit(folder: Path, query: str) -> None:
    journal = Journal(folder)
    with journal.store.transaction() as db:
        assert db.execute(query).rowcount == 1
    journal.close()


def test_a_run_becomes_a_trace_that_the_replay_reads(
    recording: ModuleType, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recording.main([str(run), "gpt-test-1", "--budget-seconds", "2"]) == 0
    path = recording.FOLDER / "gpt-test-1.json.gz"
    assert str(path) in capsys.readouterr().out
    trace = _read(path)
    assert (trace.name, trace.space, trace.minimize) == ("gpt-test-1", SPACE, True)
    assert [t.number for t in trace.trials] == [0, 1, 2, 3, 4]
    assert [t.failure for t in trace.trials] == ["", "", "constraint", "", ""]
    assert [t.seconds for t in trace.trials] == [0.39, 0.13, 0.0, 0.13, 0.13]  # a baseline thrice
    assert {t.mechanism for t in trace.trials} == {""}
    assert trace.trials[1].metric == 3.01
    assert "measured: gpt on" in trace.source
    told = trace.provenance
    assert (told["seed"], told["task_digest"], told["trials"]) == (3, "6" * 64, 4)
    before = path.read_bytes()
    assert recording.main([str(run), "gpt-test-1", "--budget-seconds", "2"]) == 2
    assert path.read_bytes() == before  # what was recorded is never replaced


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["Gpt", "--budget-seconds", "2"], "no name of a trace"),
        (["../gpt", "--budget-seconds", "2"], "no name of a trace"),
        (["gpt", "--budget-seconds", "nan"], "each training"),
        (["gpt", "--budget-seconds", "0"], "each training"),
    ],
)
def test_bad_arguments_are_refused(
    recording: ModuleType,
    run: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    assert recording.main([str(run), *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not list(recording.FOLDER.iterdir())


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("UPDATE trials SET mechanism = 'tabu' WHERE number = 3", "was chosen by tabu"),
        ("UPDATE trials SET failure = 'constraint' WHERE number = 3", "made in another space"),
        ("UPDATE trials SET status = 'discarded' WHERE number = 0", "needs a kept baseline"),
    ],
)
def test_a_run_that_is_no_recording_of_the_null_mechanism_is_refused(
    recording: ModuleType,
    run: Path,
    capsys: pytest.CaptureFixture[str],
    query: str,
    words: str,
) -> None:
    edit(run, query)
    assert recording.main([str(run), "gpt", "--budget-seconds", "2"]) == 2
    assert words in capsys.readouterr().err
    assert not list(recording.FOLDER.iterdir())


def test_what_holds_no_run_of_the_task_is_refused(
    recording: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Quick()
    other.name = "script"
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / DATABASE).write_bytes(b"no database" * 99)
    for folder in (tmp_path / "nowhere", run_in(tmp_path / "other", other), broken):
        assert recording.main([str(folder), "gpt", "--budget-seconds", "2"]) == 2
        assert str(folder) in capsys.readouterr().err
    assert not list(recording.FOLDER.iterdir())
