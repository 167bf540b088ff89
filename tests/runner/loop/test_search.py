"""The loop without a platform: what is refused, what fails, what pauses; Level 2 beside it; and
the command line's ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from runner.control.local import Local
from runner.interfaces import (
    BudgetExceeded,
    Outcome,
    PriorError,
    ResearchContext,
    ResearchDraft,
    Steering,
)
from runner.levels.level2 import Base, Level2, seed_library
from runner.loop.baseline import BaselineFailed
from runner.loop.measurements import Measurements, Purpose
from runner.loop.search import MAX_EMPTY, Plan, Search
from runner.storage.drafts import Drafts, DraftState
from runner.storage.journal import Journal
from sandbox.mechanism import Candidate, Mechanism, View
from tests.runner.surface import SurfaceTask, WalkPrior
from tests.runner.waiting import wait_for_end

ROOT = Path(__file__).parents[3]


class Script:
    """A prior that answers what the test says, then small valid steps."""

    label = "script (test)"

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.guidance: list[str] = []

    def ask(self, view: View, guidance: str, count: int) -> list[Candidate]:
        self.guidance.append(guidance)
        answer = self.answers.pop(0) if self.answers else {"DEPTH": 1 + len(view.trace) % 11}
        if isinstance(answer, Exception):
            raise answer
        return [] if answer is None else [Candidate(changes=answer)]


def search(folder: Path, **parts: Any) -> tuple[Search, Journal]:
    journal = Journal(folder)
    task = parts.pop("task", SurfaceTask())
    journal.identify(task=task.name, task_digest=task.digest, seed=1)
    mechanism = parts.pop("mechanism", Mechanism)
    fields: dict[str, Any] = {
        "journal": journal,
        "task": task,
        "prior": WalkPrior(),
        "control": Local(journal, mechanism),
        "plan": Plan(trials=parts.pop("trials", 3)),
        "say": lambda _: None,
    }
    return Search(**{**fields, **parts}), journal


# --- candidates ---


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"DEPTH": 99}, "above"),
        ({"DEPTH": 2.5}, "whole number"),
        ({"BATCH": 48}, "power of two"),
        ({"NO_SUCH": 1}, "unknown knob"),
        ({"RATE": float("nan")}, "finite"),
        ({"RATE": True}, "not a number"),
        ({"DEPTH": "4"}, "not a number"),
    ],
)
def test_a_candidate_outside_the_space_is_a_failed_trial(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    if changes.get("RATE") != changes.get("RATE"):
        changes = {"RATE": 1e300}  # what a NaN would be after the wire
        why = "above"
    task = SurfaceTask()
    loop, journal = search(tmp_path, prior=Script(changes), trials=2, task=task)
    loop.run()
    refused = journal.decided()[1]
    assert (refused.failure, refused.status, refused.seconds) == ("constraint", "failed", 0)
    assert why in refused.message
    assert refused.hooks.candidates_refused == 1
    assert journal.decided()[2].metric is not None
    assert len(task.trained) == 4  # three repeats and the good one


def test_a_frozen_knob_stays(tmp_path: Path) -> None:
    def freeze(view: View, steering: Steering) -> Steering:
        return Steering(frozen=frozenset({"DEPTH"}), guidance="leave DEPTH")

    prior = Script({"DEPTH": 5}, {"DEPTH": 7}, {"RATE": 0.5})
    loop, journal = search(tmp_path, prior=prior, steer=freeze, plan=Plan(trials=3, steer_every=1))
    loop.run()
    assert "DEPTH is frozen" in journal.decided()[2].message
    assert journal.decided()[3].metric is not None
    assert prior.guidance == ["", "leave DEPTH", "leave DEPTH"]


def test_level_15_that_fails_changes_nothing_and_is_on_record(tmp_path: Path) -> None:
    def broken(view: View, steering: Steering) -> Steering:
        raise PriorError("nonsense")

    loop, journal = search(tmp_path, steer=broken, plan=Plan(trials=2, steer_every=1))
    loop.run()
    assert journal.steering()[1].reasons == ("failed: nonsense",)


# --- trouble ---


def test_a_prior_that_fails_once_costs_one_trial(tmp_path: Path) -> None:
    loop, journal = search(tmp_path, prior=Script(PriorError("no JSON")), trials=2)
    loop.run()
    first, second = journal.decided()[1:]
    assert first.failure == "no_candidate"
    assert "no JSON" in first.message
    assert second.metric is not None


@pytest.mark.parametrize("answer", [PriorError("down"), None])
def test_a_prior_that_keeps_failing_pauses_the_run(tmp_path: Path, answer: Any) -> None:
    loop, journal = search(tmp_path, prior=Script(*[answer] * 9), trials=9)
    with pytest.raises(PriorError):
        loop.run()
    assert journal.count() == 1 + MAX_EMPTY
    assert journal.pending() == []
    journal.close()
    again, journal = search(tmp_path, prior=Script(), trials=5)
    again.run()
    assert journal.count() == 6


def test_a_spent_budget_pauses_the_run_and_records_no_trial(tmp_path: Path) -> None:
    loop, journal = search(tmp_path, prior=Script({"DEPTH": 5}, BudgetExceeded("cap")), trials=9)
    with pytest.raises(BudgetExceeded):
        loop.run()
    assert journal.count() == 2
    assert journal.pending() == []


class Failing(SurfaceTask):
    """Its trainings give what the test says."""

    def __init__(self, *outcomes: Outcome) -> None:
        super().__init__()
        self.outcomes = list(outcomes)

    def run(self, config: Any, *, seed: int, progress: Any = None) -> Outcome:
        return self.outcomes.pop(0) if self.outcomes else Outcome(metric=3.0)


def test_failed_trials_are_recorded_and_the_run_goes_on(tmp_path: Path) -> None:
    good = [Outcome(metric=float(n)) for n in (3, 4, 5)]
    bad = [
        Outcome(metric=None, failure="oom", message="killed", seconds=1.5),
        Outcome(metric=float("nan")),
        Outcome(metric=None),
        Outcome(metric=2.0),
    ]
    loop, journal = search(tmp_path, task=Failing(*good, *bad), prior=Script(), trials=4)
    loop.run()
    trials = journal.decided()
    assert trials[0].metric == 4.0  # the mean, not the luckiest
    assert journal.sigma == 1.0
    assert [t.failure for t in trials[1:]] == ["oom", "nan", "no_metric", ""]
    assert [t.status for t in trials[1:]] == ["failed"] * 3 + ["kept"]
    assert trials[1].seconds == 1.5


def test_a_baseline_that_cannot_be_trained_ends_the_run(tmp_path: Path) -> None:
    crash = Outcome(metric=None, failure="crash", message="no torch")
    loop, journal = search(tmp_path, task=Failing(crash, Outcome(metric=1.0), crash, crash))
    with pytest.raises(BaselineFailed, match="no torch"):
        loop.run()
    outcomes = Measurements(journal).outcomes(Purpose.BASELINE)
    assert [o.failure for o in outcomes] == ["crash", "", "crash", "crash", ""]
    assert journal.count() == 0


@pytest.mark.parametrize(("parallel", "trained"), [(1, 1), (2, 2)])
def test_a_baseline_without_a_metric_is_not_trained_again(
    tmp_path: Path, parallel: int, trained: int
) -> None:
    silent = Outcome(metric=None, failure="no_metric", message="printed nothing")
    plan = Plan(trials=2, count=parallel)
    loop, journal = search(tmp_path, task=Failing(*[silent] * 5), plan=plan)
    with pytest.raises(BaselineFailed, match=f"(?s)failed {trained} of {trained} .*another --out"):
        loop.run()
    assert len(Measurements(journal).outcomes(Purpose.BASELINE)) == trained


# --- Level 2 ---


class Drafting:
    """A researcher that does what the test says."""

    label = "test"

    def __init__(self, act: Callable[[ResearchContext], ResearchDraft | None]) -> None:
        self.act = act
        self.seen: list[ResearchContext] = []

    def draft(self, context: ResearchContext, progress: Any = None) -> ResearchDraft | None:
        self.seen.append(context)
        return self.act(context)


def made(context: ResearchContext) -> ResearchDraft:
    name = f"made_{len(context.trace)}"
    return ResearchDraft(
        title=name,
        summary="",
        files={f"mechanisms/{name}.py": "x = 1\n", f"tests/test_{name}.py": "\n"},
        operator="tabu",
        parameters={},
        diagnosis={},
        rounds=(),
        generator="test",
    )


def with_level2(folder: Path, researcher: Any, trials: int) -> tuple[Search, Journal]:
    loop, journal = search(folder, trials=trials)
    loop.outer = Level2(
        journal=journal,
        task=loop.task,
        researcher=researcher,
        base=lambda: Base(commit="", library=seed_library(ROOT / "mechanisms_repo")),
        every=2,
        say=lambda _: None,
        news=lambda: None,
    )
    return loop, journal


def test_level_2_drafts_every_so_many_trials(tmp_path: Path) -> None:
    researcher = Drafting(made)
    loop, journal = with_level2(tmp_path, researcher, 5)
    loop.run()
    assert [len(c.trace) for c in researcher.seen] == [3, 5]
    context = researcher.seen[1]
    assert "class Null" in context.mechanism_source
    assert {"null", "tabu"} <= {e.name for e in context.library}
    drafts = Drafts(journal).all()
    assert [(d.after_trial, d.state) for d in drafts] == [
        (2, DraftState.LOCAL),
        (4, DraftState.LOCAL),
    ]
    assert (tmp_path / "drafts/after_0002/mechanisms/made_3.py").read_text() == "x = 1\n"


def test_a_draft_that_was_cut_short_is_begun_again_under_its_id(tmp_path: Path) -> None:
    loop, journal = with_level2(tmp_path, Drafting(made), 2)
    loop.run()
    Drafts(journal).due(2)  # as if the runner had been killed while it was being drafted
    before = Drafts(journal).all(DraftState.DUE)[0].draft_id
    journal.close()
    researcher = Drafting(made)
    loop, journal = with_level2(tmp_path, researcher, 3)
    loop.run()
    assert len(researcher.seen[0].trace) == 3
    assert Drafts(journal).all()[0].draft_id == before
    assert Drafts(journal).all()[0].state is DraftState.LOCAL


def raising(error: Exception) -> Callable[[ResearchContext], ResearchDraft]:
    def act(context: ResearchContext) -> ResearchDraft:
        raise error

    return act


def test_level_2_that_fails_is_recorded_and_the_run_goes_on(tmp_path: Path) -> None:
    loop, journal = with_level2(tmp_path, Drafting(raising(PriorError("nonsense"))), 3)
    loop.run()
    (draft,) = Drafts(journal).all()
    assert (draft.state, draft.reason) == (DraftState.FAILED, "nonsense")


@pytest.mark.parametrize(
    ("error", "state"),
    [(BudgetExceeded("cap"), DraftState.DUE), (ZeroDivisionError("bug"), DraftState.FAILED)],
)
def test_level_2s_worse_troubles_end_the_run_aloud(
    tmp_path: Path, error: Exception, state: DraftState
) -> None:
    loop, journal = with_level2(tmp_path, Drafting(raising(error)), 3)
    with pytest.raises(type(error)):
        loop.run()
    assert Drafts(journal).all()[0].state is state  # what a cap interrupts is begun again


def test_no_mechanism_selected_means_no_proposal(tmp_path: Path) -> None:
    loop, journal = with_level2(tmp_path, Drafting(lambda _: None), 3)
    loop.run()
    assert [d.state for d in Drafts(journal).all()] == [DraftState.NONE]


# --- the command line ---


def runner(*options: str, var: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "runner", *options],
        cwd=ROOT,
        env={**os.environ, "ESCAPEMENT_VAR": str(var), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--task", "no-such"), "no task"),
        (("--prior", "openai"), "--base-url"),
        (("--model", "m"), "add --prior openai, --generator openai, or both"),
        (("--memory", "/no/such/folder"), "--memory: /no/such/folder is no folder"),
        (("--memory", "/tmp", "--no-memory"), "which one?"),
        (("--prior", "guess"), "habit"),
        (("--platform", "/no/such/file"), "register_runner"),
        (("--out", "/proc/1/nowhere"), "choose another --out"),
    ],
)
def test_options_that_cannot_be_used_say_so(
    tmp_path: Path, options: tuple[str, ...], why: str
) -> None:
    base = ("run", "--task", "gpt", "--trials", "1", "--out", str(tmp_path / "run"))
    process = runner(*base, *options, var=tmp_path)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 2
    assert why in output
    assert "Traceback" not in output


def children_of(pid: int) -> list[str]:
    """Of any of its threads."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # the thread ended while we looked
            found += file.read_text().split()
    return found


def test_a_signal_stops_at_once_and_leaves_no_trainer(tmp_path: Path) -> None:
    process = runner(
        *("run", "--task", "gpt", "--trials", "5", "--out", str(tmp_path / "run")),
        *("--budget-seconds", "600"),
        var=tmp_path,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "repeat 1 of 3: training" in line:
            break
    while not (trainers := children_of(process.pid)):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    output = process.stdout.read()
    assert process.wait(60) == 128 + signal.SIGTERM, output
    assert "stopped" in output
    process.stdout.close()
    for pid in trainers:
        wait_for_end(int(pid))
    journal = Journal(tmp_path / "run")  # the folder is free, and nothing is half done
    assert journal.count() == 0
    journal.close()
