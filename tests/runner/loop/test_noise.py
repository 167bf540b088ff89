"""Noise and the keep rule: what is chance is not kept, what was confirmed is, and all is counted;
trainings side by side, decided in the order of their numbers."""

from __future__ import annotations

import math
import random
import statistics
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from runner.control.local import Local
from runner.interfaces import Outcome
from runner.loop import baseline
from runner.loop.measurements import Measurements, Purpose, Rules
from runner.loop.noise import Baseline, Noise, form, gain, mean_of, pooled
from runner.loop.reports import run_report, trial_report
from runner.loop.search import Plan, Search
from runner.storage.journal import Journal
from runner.storage.store import JournalError
from sandbox.mechanism import Candidate, Mechanism, Trial, View
from sandbox.paired import quantile_95
from tests.runner.surface import SurfaceTask, WalkPrior

METRICS = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8)


# --- numbers ---


@given(METRICS)
def test_one_baseline_is_its_own_noise(metrics: list[float]) -> None:
    found = pooled([Baseline(run_id="a", metrics=tuple(metrics))])
    assert found.sigma == pytest.approx(statistics.stdev(metrics), abs=1e-9)
    assert (found.degrees, found.n, found.runs) == (len(metrics) - 1, len(metrics), 1)


@given(st.floats(-1e6, 1e6), st.integers(1, 7))
def test_the_mean_of_equal_values_is_that_value(value: float, times: int) -> None:
    assert mean_of([value] * times) == value
    assert mean_of([0.9412] * 3) == 0.9412 != statistics.fmean([0.9412] * 3)


@pytest.mark.parametrize(
    ("metric", "told"),
    [(0.0, "0.0000"), (3.51, "3.5100"), (-0.01, "-0.0100"), (1.5e-7, "1.5e-07"), (2e12, "2e+12")],
)
def test_a_metric_is_told_with_digits_that_mean_something(metric: float, told: str) -> None:
    assert f"{metric:{form(metric)}}" == told


def test_a_trial_that_changes_nothing_is_not_better_by_a_rounding() -> None:
    own = Baseline(run_id="a", metrics=(-0.9412,) * 3)
    noise = pooled([own])
    assert gain([-0.9412], noise, minimize=True).value == 0


@given(METRICS, METRICS)
def test_pooling_is_within_runs_and_counts_a_run_once(one: list[float], two: list[float]) -> None:
    a, b = Baseline(run_id="a", metrics=tuple(one)), Baseline(run_id="b", metrics=tuple(two))
    found = pooled([a, b, a])
    assert found.n == len(one) + len(two)
    squares = sum(statistics.variance(x) * (len(x) - 1) for x in (one, two))
    assert found.sigma == pytest.approx(math.sqrt(squares / found.degrees), abs=1e-9)


def test_a_slower_day_is_no_noise() -> None:
    days = [Baseline(run_id=str(d), metrics=(d + 0.1, d - 0.1)) for d in (1.0, 5.0)]
    assert pooled(days).sigma == pytest.approx(math.sqrt(0.02))


def test_a_baseline_of_another_state_of_the_host_is_no_yardstick() -> None:
    """The host was slower then: to be better than that baseline would be no gain."""
    slow = Baseline(run_id="slow", metrics=(19.9, 20.0, 20.1))
    near = Baseline(run_id="near", metrics=(9.95, 10.05, 10.15))
    own = Baseline(run_id="own", metrics=(9.9, 10.0, 10.1))
    found = pooled([slow, near, own], own="own")
    assert (found.runs, found.n, found.left_out, found.degrees) == (2, 6, 1, 6)
    assert found.mean == pytest.approx(10.025)
    assert found.sigma == pytest.approx(0.1)  # its spread counts
    assert gain([10.0, 10.0, 10.0], found, minimize=True).value == pytest.approx(0.025)


def test_a_noise_of_nothing_is_said_and_is_not_unknown() -> None:
    found = pooled([Baseline(run_id="a", metrics=(1.0, 1.0))], own="a")
    assert found.sigma == 0
    assert "noise measured as 0" in str(gain([0.5], found, minimize=True))
    once = pooled([Baseline(run_id="a", metrics=(1.0,)), Baseline(run_id="b", metrics=(9.0,))])
    assert "noise not known" in str(gain([0.5], once, minimize=True))


def test_students_quantiles_are_scipys() -> None:
    for degrees in range(1, 400):
        assert quantile_95(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=5e-4), degrees


def test_a_baseline_without_repeats_has_no_noise() -> None:
    found = pooled([Baseline(run_id="a", metrics=(1.0,))])
    assert found.sigma is None
    assert gain([0.5], found, minimize=True).sigmas is None
    with pytest.raises(ValueError, match="no baseline"):
        pooled([])
    with pytest.raises(ValueError, match="two values"):
        quantile_95(0)


def test_a_gain_has_the_textbooks_interval() -> None:
    noise = Noise(sigma=0.5, degrees=2, mean=3.0, n=3, runs=1)
    found = gain([2.0, 2.0, 2.0], noise, minimize=True)
    assert (found.value, found.sigmas) == (1.0, 2.0)
    assert found.high is not None
    assert found.high - 2.0 == pytest.approx(4.303 * math.sqrt(1 / 3 + 1 / 3))
    assert gain([2.0], noise, minimize=False).value == -1.0


# --- the keep rule ---


class Given:
    """Proposes another DEPTH each time."""

    label = "given (test)"

    def ask(self, view: View, guidance: str, count: int) -> list[Candidate]:
        done = len(view.trace)
        return [Candidate(changes={"DEPTH": 1 + (done + i) % 11}) for i in range(count)]


class Told(SurfaceTask):
    """Trainings give, in their order, what the test says (None: a failure)."""

    def __init__(self, *metrics: float | None) -> None:
        super().__init__()
        self.metrics = list(metrics)

    def run(self, config: Any, *, seed: int, progress: Any = None) -> Outcome:
        self.trained.append((dict(config), seed))
        metric = self.metrics.pop(0)
        return Outcome(metric=metric, failure="" if metric is not None else "crash", seconds=1.0)


def searched(folder: Path, task: Any, **plan: Any) -> Journal:
    journal = Journal(folder)
    journal.identify(task=task.name, task_digest=task.digest, seed=1)
    Search(
        journal=journal,
        task=task,
        prior=plan.pop("prior", Given()),
        control=Local(journal, plan.pop("mechanism", Mechanism)),
        plan=Plan(**{"final_repeats": 0, **plan}),
        say=lambda _: None,
    ).run()
    return journal


BASE = (9.0, 10.0, 11.0)  # mean 10, sigma 1


@pytest.mark.parametrize(
    ("metrics", "status", "measurements"),
    [
        ((7.9,), "kept", 1),  # above two sigma at once
        ((10.1,), "discarded", 1),  # no gain: nothing to confirm
        ((8.1, 8.1), "kept", 2),  # 1.9 is above 2 / sqrt(2)
        ((8.7, 8.5), "discarded", 2),  # 1.4 is not
        ((8.1, 12.0), "discarded", 2),  # it was luck
        ((8.1, None), "discarded", 1),  # not confirmed
    ],
)
def test_a_gain_is_kept_above_the_noise_or_once_confirmed(
    tmp_path: Path, metrics: tuple[float | None, ...], status: str, measurements: int
) -> None:
    task = Told(*BASE, *metrics)
    journal = searched(tmp_path, task, trials=1)
    assert task.metrics == []  # so many trainings, and not one more
    trial = journal.decided()[1]
    good = [m for m in metrics if m is not None]
    assert (trial.status, trial.trial().measurements) == (status, measurements)
    assert trial.metric == pytest.approx(statistics.fmean(good))
    assert trial.seconds == len(metrics)
    assert trial.hooks.acceptances_changed == 0  # that is the null mechanism's own rule
    counted = Measurements(journal).count(Purpose.CONFIRM)
    assert counted == len(metrics) - 1
    seeds = [seed for _, seed in task.trained]
    assert len(set(seeds)) == len(seeds)
    if None in metrics:
        assert "to confirm it failed" in trial.message
    report = trial_report(trial)
    assert report.repeats == (good if len(good) > 1 else [])


@pytest.mark.parametrize(
    ("plan", "used"), [({"keep_sigma": 0.0}, 1), ({"confirmations": 3, "keep_sigma": 3.0}, 4)]
)
def test_zero_sigma_keeps_any_gain_and_more_confirmations_may_be_wanted(
    tmp_path: Path, plan: dict[str, Any], used: int
) -> None:
    task = Told(*BASE, *[8.9] * used)
    journal = searched(tmp_path, task, trials=1, **plan)
    assert task.metrics == []
    assert journal.decided()[1].status == ("kept" if used == 1 else "discarded")


class Greedy(Mechanism):
    """Keeps whatever is better at all: another rule than the run's."""

    def accept(self, trial: Trial, view: View) -> bool:
        assert view.noise == 1.0
        assert trial.metric is not None
        assert view.best.metric is not None
        return view.better(trial.metric, view.best.metric)


def test_a_mechanism_with_a_rule_of_its_own_changes_acceptances(tmp_path: Path) -> None:
    journal = searched(tmp_path, Told(*BASE, 9.5, 9.5), trials=1, mechanism=Greedy)
    trial = journal.decided()[1]
    assert trial.status == "kept"
    assert trial.hooks.acceptances_changed == 1


def test_the_noise_of_other_runs_is_pooled(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    task = Told(*BASE, 8.1)
    journal.identify(task=task.name, task_digest=task.digest, seed=1)
    Search(
        journal=journal,
        task=task,
        prior=Given(),
        control=Local(journal),
        plan=Plan(trials=1, final_repeats=0),
        say=lambda _: None,
        earlier=[Baseline(run_id="other", metrics=tuple([10.0] * 9))],
    ).run()
    noise = Measurements(journal).noise
    assert noise is not None
    assert (noise.degrees, noise.n, noise.runs) == (10, 12, 2)
    assert journal.sigma == pytest.approx(math.sqrt(2 / 10))
    assert journal.decided()[1].status == "kept"  # 1.9 is above 2 x 0.45


# --- the result ---


def test_the_result_is_measured_anew_and_never_the_luckiest(tmp_path: Path) -> None:
    task = Told(*BASE, 5.0, 20.0, 7.0, 8.0, 9.0)
    journal = searched(tmp_path, task, trials=2, final_repeats=3)
    found = baseline.result(journal, minimize=True)
    assert found is not None
    assert (found.trial, found.metrics, found.mean) == (1, (7.0, 8.0, 9.0), 8.0)
    assert found.gain is not None
    assert found.gain.value == 2.0
    report = run_report(journal, task, prior="p", facts={}, planned=2, state="finished")
    assert report.result is not None
    assert (report.result.trial, report.result.gain) == (1, 2.0)
    assert report.measuring is not None
    assert (report.measuring.baseline, report.measuring.final) == (3, 3)


def test_nothing_better_is_a_result_too(tmp_path: Path) -> None:
    journal = searched(tmp_path, Told(*BASE, 12.0), trials=1, final_repeats=3)
    found = baseline.result(journal, minimize=True)
    assert found is not None
    assert (found.trial, found.metrics) == (0, ())
    assert "no trial was better" in baseline.told(found, "loss")


# --- rules stay what they were ---


def test_a_run_keeps_its_rules(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    measurements = Measurements(journal)
    rules = measurements.settle(defaults=Rules(), wanted={"parallel": 2, "keep_sigma": None})
    assert rules == Rules(parallel=2)
    assert measurements.settle(defaults=Rules(keep_sigma=1.0), wanted={}) == rules
    with pytest.raises(JournalError, match="begun with --parallel 2"):
        measurements.settle(defaults=Rules(), wanted={"parallel": 3})
    with pytest.raises(ValueError, match="keep_sigma"):
        Rules(keep_sigma=-1)


# --- side by side ---


class Meeting(SurfaceTask):
    """A training ends only when as many are there at once."""

    def __init__(self, parties: int) -> None:
        super().__init__()
        self.barrier = threading.Barrier(parties, timeout=60)

    def run(self, config: Any, *, seed: int, progress: Any = None) -> Outcome:
        self.barrier.wait()
        return super().run(config, seed=seed, progress=progress)


def test_so_many_train_at_once(tmp_path: Path) -> None:
    task = Meeting(3)
    plan = {"trials": 6, "count": 3, "keep_sigma": 0.0, "final_repeats": 3}
    journal = searched(tmp_path, task, prior=Given(), **plan)
    assert journal.count() == 7
    hooks = [e.hooks.propose_calls for e in journal.decided()[1:]]
    assert hooks == [1, 0, 0, 1, 0, 0]  # asked for three at a time


class Shuffled(SurfaceTask):
    """Trainings end in an order that nobody can foresee."""

    def run(self, config: Any, *, seed: int, progress: Any = None) -> Outcome:
        threading.Event().wait(random.Random().random() * 0.005)
        return super().run(config, seed=seed, progress=progress)


def test_what_is_decided_does_not_depend_on_who_ends_first(tmp_path: Path) -> None:
    runs = []
    for name in ("one", "two"):
        journal = searched(
            tmp_path / name, Shuffled(), prior=WalkPrior(), trials=12, count=4, confirmations=2
        )
        runs.append([(e.number, e.config, e.metric, e.status) for e in journal.decided()])
    assert runs[0] == runs[1]
