"""The parts of an ablation by themselves: budget, policy, restart, tuners."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.arms import approval
from runner.arms.budget import Book, Budgeted, Spent, Training
from runner.arms.control import LevelTwoNow
from runner.arms.forgetful import ForgetfulPrior, since_restart
from runner.arms.gate import placebo_digest
from runner.arms.spec import ArmsError, arms_named
from runner.arms.tuners import TUNERS, drawn, levels, to_config, to_vector, tuner_for
from runner.control.local import Local
from runner.gpt.space import SPACE
from runner.interfaces import Outcome
from runner.levels.level2 import Base
from runner.levels.strategy import HabitPrior
from runner.loop.search import Plan, Search
from runner.storage.journal import Journal
from sandbox.mechanism import Knob, Space, Trial, View
from sandbox.report import CheckResult, Finding, Report, Severity
from sandbox.report import Outcome as Result
from tests.runner.surface import SurfaceTask, WalkPrior

# --- which arms ---


def test_arms_are_named_by_letters():
    assert [arm.letter for arm in arms_named("D, A")] == ["D", "A"]
    with pytest.raises(ArmsError, match=r"no arm 'X'; there are: A \(Level 1\)"):
        arms_named("A,X")
    with pytest.raises(ArmsError, match="twice"):
        arms_named("A,A")
    with pytest.raises(ArmsError, match="no arm ''"):
        arms_named("")


# --- the budget ---


def budgeted(tmp_path, trainings=3):
    task = SurfaceTask()
    return task, Budgeted(
        task,
        trainings=trainings,
        book=Book(tmp_path / "book.jsonl"),
        baseline=Book(tmp_path / "baseline.jsonl"),
        baseline_seeds=range(3),
    )


def test_an_arm_gets_its_trainings_and_not_one_more(tmp_path):
    task, budget = budgeted(tmp_path)
    default = task.space.defaults()
    for seed in range(3):
        budget.run(default, seed=seed)
    assert budget.book.trainings == []
    assert len(budget.baseline.trainings) == 3
    other = {**default, "DEPTH": 5}
    for seed in range(3):
        budget.run(other, seed=seed)
    with pytest.raises(Spent):
        budget.run(other, seed=9)
    assert len(task.trained) == 6
    assert not issubclass(Spent, Exception)


def test_the_same_training_is_never_done_twice_not_even_by_another_process(tmp_path):
    task, budget = budgeted(tmp_path)
    other = {**task.space.defaults(), "DEPTH": 5}
    first = budget.run(other, seed=1)
    assert budget.run(other, seed=1) == first
    again, resumed = budgeted(tmp_path)
    assert resumed.run(other, seed=1) == first
    assert (len(task.trained), len(again.trained)) == (1, 0)
    assert resumed.run(other, seed=2) != first


def test_a_trial_with_the_default_counts_whatever_other_arms_did_before(tmp_path):
    """Only the baseline's own seeds are shared: else what an arm pays depended on the others."""
    task, budget = budgeted(tmp_path)
    default = task.space.defaults()
    budget.run(default, seed=7)  # the first trial of an arm, before it trained anything else
    budget.run(default, seed=2)
    assert [t.seed for t in budget.book.trainings] == [7]
    assert [t.seed for t in budget.baseline.trainings] == [2]
    other = Budgeted(
        task,
        trainings=3,
        book=Book(tmp_path / "other.jsonl"),
        baseline=Book(tmp_path / "baseline.jsonl"),
        baseline_seeds=range(3),
    )
    other.run(default, seed=7)
    assert [t.seed for t in other.book.trainings] == [7]


def test_a_book_that_was_cut_short_loses_its_last_line_alone(tmp_path):
    path = tmp_path / "book.jsonl"
    book = Book(path)
    for seed in range(3):
        book.add(Training.of({"A": seed}, seed, Outcome(metric=float(seed))))
    data = path.read_bytes()
    path.write_bytes(data[:-5])
    again = Book(path)
    assert [t.seed for t in again.trainings] == [0, 1]
    again.add(Training.of({"A": 2}, 2, Outcome(metric=2.0)))
    assert path.read_bytes() == data
    path.write_bytes(b"broken\n" + data)
    with pytest.raises(ArmsError, match="broken"):
        Book(path)


# --- the policy of the benchmark ---


def report(digest, *checks):
    return Report(mechanism="m", digest=digest, checks=checks, image_id="", posture={}, versions={})


def check(name, outcome, *rules):
    found = tuple(
        Finding(check=name, rule=rule, severity=Severity.ERROR, message="x") for rule in rules
    )
    return CheckResult(name=name, outcome=outcome, findings=found)


PASSED = check("imports", Result.PASSED)
INERT = check("replay", Result.FAILED, "inert")


def test_what_passes_every_check_is_approved_and_nothing_else():
    def decided(*checks, digest="d" * 64):
        return approval.decide(report(digest, *checks), placebo_digest=placebo_digest())

    assert decided(PASSED).approved
    assert not decided().approved
    assert not decided(PASSED, INERT).approved
    for outcome in (Result.FAILED, Result.COULD_NOT_LOOK, Result.SKIPPED):
        assert not decided(PASSED, check("contract", outcome, "TIMEOUT")).approved


def test_the_placebo_alone_may_be_inert_and_nothing_more():
    def decided(*checks):
        made = report(placebo_digest(), *checks)
        return approval.decide(made, placebo_digest=placebo_digest())

    answer = decided(PASSED, INERT)
    assert answer.approved
    assert answer.let_through == ("inert",)
    assert not decided(PASSED, check("replay", Result.FAILED, "inert", "outside-space")).approved
    assert not decided(INERT, check("imports", Result.FAILED, "import-not-allowed")).approved
    assert not decided(INERT, check("contract", Result.SKIPPED)).approved
    assert not decided(check("replay", Result.COULD_NOT_LOOK, "inert")).approved


# --- Level 2 at the boundary ---


def test_level_2_drafts_at_the_boundary_from_the_trace_up_to_it(tmp_path):
    seen = []

    class Nothing:
        label = "nothing (test)"

        def draft(self, context, progress=None):
            seen.append([trial.number for trial in context.trace])

    task, journal = SurfaceTask(), Journal(tmp_path)
    journal.identify(task=task.name, task_digest=task.digest, seed=1)
    level2 = LevelTwoNow(
        journal=journal,
        task=task,
        researcher=Nothing(),
        base=lambda: Base(commit="", library=()),
        every=2,
        say=lambda _: None,
        news=lambda: None,
    )
    level2.first = True
    Search(
        journal=journal,
        task=task,
        prior=WalkPrior(),
        control=Local(journal),
        plan=Plan(trials=5, final_repeats=0),
        say=lambda _: None,
        outer=level2,
    ).run()
    assert seen == [list(range(1)), list(range(3)), list(range(5))]
    assert journal.count() == 6


# --- the restart ---


def view_of(metrics, every=10):
    space = Space({"A": Knob(kind="int", default=0, low=0, high=1000)})
    trials = [Trial(number=0, config={"A": 0}, changes={}, metric=5.0, status="kept")]
    best = trials[0]
    for number, metric in enumerate(metrics, start=1):
        kept = metric is not None and metric < best.metric
        status = "failed" if metric is None else "kept" if kept else "discarded"
        trial = Trial(
            number=number,
            config={"A": number},
            changes={"A": number},
            metric=metric,
            status=status,
        )
        trials.append(trial)
        best = trial if kept else best
    return View(trace=tuple(trials), best=best, space=space, noise=None)


def test_a_restart_forgets_all_but_the_baseline():
    view = view_of([4.0, 3.0, None, 4.5, 2.0, 6.0, 6.0, 6.0, 6.0, 6.0, 4.9, 4.8])
    seen = since_restart(view, 10)
    assert [t.number for t in seen.trace] == [0, 11, 12]
    assert [t.status for t in seen.trace] == ["kept", "kept", "kept"]
    assert seen.best.number == 12
    assert [t.number for t in since_restart(view_of([4.0] * 10), 10).trace] == [0]
    assert [t.number for t in since_restart(view_of([4.0] * 9), 10).trace] == list(range(10))


def test_what_the_forgetful_prior_proposes_is_against_the_runs_best():
    class OneStep:
        label = "one step"

        def ask(self, view, guidance, count):
            from sandbox.mechanism import Candidate

            assert view.best.number == 0
            return [Candidate(changes={"A": 7})]

    view = view_of([2.0] + [6.0] * 9)
    found = ForgetfulPrior(OneStep(), every=10).ask(view, "", 1)
    assert view.config_of(found[0].changes) == {"A": 7}
    assert "restarted every 10" in ForgetfulPrior(HabitPrior(), every=10).label


def test_before_the_first_restart_nothing_is_different():
    view = view_of([4.0, 6.0, 3.0])
    plain = HabitPrior().ask(_seeded(view), "", 1)
    forgetful = ForgetfulPrior(HabitPrior(), every=10).ask(_seeded(view), "", 1)
    assert [dict(c.changes) for c in plain] == [dict(c.changes) for c in forgetful]


def _seeded(view):
    from dataclasses import replace

    return replace(view, random=random.Random(1))


# --- tuners ---


def loss_of(config):
    size = math.log2(config["TOTAL_BATCH_SIZE"])
    return (size - 10) ** 2 / 10 + abs(math.log(config["MATRIX_LR"] / 0.05))


FEW = Space(
    {
        "TOTAL_BATCH_SIZE": Knob(kind="power_of_two", default=2**14, low=2**8, high=2**16),
        "MATRIX_LR": Knob(kind="float", default=0.01, low=0.001, high=0.2, log=True),
        "WINDOW_PATTERN": Knob(kind="choice", default="L", choices=("L", "SL", "S")),
    }
)


@pytest.mark.parametrize("letter", sorted(TUNERS))
def test_a_tuner_keeps_to_the_space_repeats_itself_and_bears_failures(letter):
    def run():
        tuner = tuner_for(letter, FEW, 3)
        tuner.tell(FEW.defaults(), loss_of(FEW.defaults()))
        found = []
        for number in range(12):
            config = tuner.ask()
            assert FEW.problems(config) == []
            found.append(config)
            tuner.tell(config, None if number % 5 == 2 else loss_of(config))
        return found

    first = run()
    assert first == run()
    assert len({json.dumps(c, sort_keys=True) for c in first}) > 5


@pytest.mark.parametrize("letter", sorted(TUNERS))
def test_a_tuner_survives_a_task_where_everything_fails_and_keeps_constraints(letter):
    tuner = tuner_for(letter, SPACE, 1)
    tuner.tell(SPACE.defaults(), None)
    for _ in range(11):
        config = tuner.ask()
        assert SPACE.problems(config) == []
        tuner.tell(config, None)


def test_the_line_search_halves_the_batch_first():
    tuner = tuner_for("S", FEW, 1)
    config = FEW.defaults()
    tuner.tell(config, loss_of(config))
    sizes = []
    for _ in range(6):
        config = tuner.ask()
        sizes.append(config["TOTAL_BATCH_SIZE"])
        tuner.tell(config, loss_of(config))
    assert sizes[:5] == [2**13, 2**12, 2**11, 2**10, 2**9]


def test_better_than_chance_on_an_easy_task():
    def best(letter, seed):
        tuner = tuner_for(letter, FEW, seed)
        tuner.tell(FEW.defaults(), loss_of(FEW.defaults()))
        losses = []
        for _ in range(20):
            config = tuner.ask()
            losses.append(loss_of(config))
            tuner.tell(config, losses[-1])
        return min(losses)

    chance = np.mean([best("U", seed) for seed in range(5)])
    for letter in "TS":
        assert np.mean([best(letter, seed) for seed in range(5)]) < chance


@given(st.lists(st.floats(0, 1), min_size=13, max_size=13))
def test_any_vector_is_a_valid_configuration(values):
    config = to_config(SPACE, np.array(values))
    assert SPACE.problems(config) == []
    assert all(0 <= x <= 1 for x in to_vector(SPACE, config))


def test_every_level_has_the_same_chance():
    knob = Knob(kind="choice", default=1, choices=(1, 2, 3))
    space = Space({"A": knob})
    found = [drawn(space, np.array([u]))["A"] for u in np.linspace(0, 1, 300, endpoint=False)]
    assert [found.count(value) for value in (1, 2, 3)] == [100, 100, 100]
    assert drawn(space, np.array([1.0])) == {"A": 3}


def test_how_many_values_a_knob_has():
    assert levels(Knob(kind="choice", default=1, choices=(1, 2, 3))) == 3
    assert levels(Knob(kind="power_of_two", default=8, low=4, high=64)) == 5
    assert levels(Knob(kind="int", default=1, low=1, high=4)) == 4
    assert levels(Knob(kind="float", default=1.0, low=0.0, high=4.0)) == 0
