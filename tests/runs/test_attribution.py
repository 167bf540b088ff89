"""Attribution: counts, Welch's interval against the textbook, and "not enough data"."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs.attribution import compare, count, gain, spread_of
from runs.models import Run, Trial
from scipy import stats

METRICS = st.lists(st.floats(min_value=-100, max_value=100), min_size=3, max_size=20)


def trials(metrics: list[float | None], **more: Any) -> list[Trial]:
    return [
        Trial(
            number=i,
            metric=m,
            status="failed" if m is None else "discarded",
            best_metric=more.get("best", 1.0),
            hooks=more.get("hooks", {}),
        )
        for i, m in enumerate(metrics)
    ]


def test_counts_add_up() -> None:
    rows = trials([1.0, None], hooks={"propose_calls": 2, "accept_calls": 1, "ask_calls": 9})
    rows += trials([2.0], hooks={"acceptances_changed": 1, "proposals_changed": 3})
    found = count(rows)
    assert (found.trials, found.failed, found.calls, found.decisions_changed) == (3, 1, 6, 4)
    assert count([]).trials == 0
    assert count([]).last_best is None


@pytest.mark.parametrize(
    ("after", "before", "unit"),
    [
        ([1.0, 1.0], [1.0] * 5, 0.1),
        ([1.0] * 5, [1.0, None, None, 1.0], 0.1),
        ([1.0] * 4, [1.0] * 4, None),
        ([1.0] * 4, [1.0] * 4, 0.0),
    ],
)
def test_too_little_is_not_enough_data(after: Any, before: Any, unit: Any) -> None:
    assert gain(trials(after), trials(before), unit=unit, minimize=True) is None


@pytest.mark.parametrize(
    ("after", "quantile"),
    # By hand: variances 1 and 1 (4 degrees of freedom), then 1 and 0 (2 degrees).
    [([2.0, 3.0, 4.0], 2.776 * (2 / 3) ** 0.5), ([3.0, 3.0, 3.0], 4.303 * (1 / 3) ** 0.5)],
)
def test_the_interval_is_welchs(after: list[float], quantile: float) -> None:
    found = gain(trials(list(after)), trials([1.0, 2.0, 3.0]), unit=0.5, minimize=False)
    assert found is not None
    assert found.value == pytest.approx(1 / 0.5)
    assert found.high - found.value == pytest.approx(quantile / 0.5)
    assert found.value - found.low == pytest.approx(quantile / 0.5)
    assert str(found).startswith("+2.0 sigma (95 %: ")


@given(METRICS, METRICS, st.booleans())
def test_better_is_positive_whatever_the_direction(
    after: list[float], before: list[float], minimize: bool
) -> None:
    found = gain(trials(list(after)), trials(list(before)), unit=0.5, minimize=minimize)
    assert found is not None
    mirrored = gain(
        trials([-m for m in after]), trials([-m for m in before]), unit=0.5, minimize=not minimize
    )
    assert mirrored is not None
    assert found.value == pytest.approx(mirrored.value, abs=1e-9)
    assert found.low <= found.value <= found.high


@given(METRICS)
def test_a_mechanism_gains_nothing_on_itself(metrics: list[float]) -> None:
    same = trials(list(metrics))
    found = gain(same, same, unit=1.0, minimize=True)
    assert found is not None
    assert found.value == 0
    assert found.low <= 0 <= found.high


def test_equal_trials_still_have_the_noise_of_a_training() -> None:
    """A metric of few values: three times 0.91 after three times 0.90 is no certainty."""
    found = gain(trials([0.91] * 3), trials([0.90] * 3), unit=0.01, minimize=False)
    assert found is not None
    assert found.value == pytest.approx(1.0)
    assert found.high - found.value == pytest.approx(2.776 * (2 / 3) ** 0.5)
    assert found.low < 0


@pytest.mark.parametrize(
    ("after", "unit"),
    [
        ([1.0, 2.0, 3.0], 1e-300),  # a noise that is a rounding error
        ([1e308, 1e308, -1e308], 0.1),  # a training that diverged
        ([1e308, 1e308, 1e308], 0.1),
        ([1e200, 1.0, 1.0], 0.1),
    ],
)
def test_numbers_without_measure_are_no_gain_and_no_crash(after: Any, unit: float) -> None:
    before = [1.0, 1.5, 2.0]
    assert gain(trials(after), trials(before), unit=unit, minimize=True) is None
    assert compare(in_run(1, after, sigma=unit), in_run(1, before)) is None
    compare(in_run(1, after, sigma=unit), in_run(1, before), in_spread=True)


@given(METRICS, METRICS, st.floats(min_value=0.01, max_value=10))
def test_the_interval_is_scipys_with_degrees_rounded_down(
    after: list[float], before: list[float], unit: float
) -> None:
    found = gain(trials(list(after)), trials(list(before)), unit=unit, minimize=False)
    assert found is not None
    errors = [statistics.variance(x) / len(x) for x in (after, before)]
    if sum(errors) < 1e-6:
        return
    degrees = sum(errors) ** 2 / sum(
        e**2 / (len(x) - 1) for e, x in zip(errors, (after, before), strict=True)
    )
    half = stats.t.ppf(0.975, int(degrees + 1e-9)) * sum(errors) ** 0.5 / unit
    middle = (statistics.fmean(after) - statistics.fmean(before)) / unit
    near = half / 1000 + 1e-6  # of the table of t
    assert found.low == pytest.approx(middle - half, abs=near)
    assert found.high == pytest.approx(middle + half, abs=near)


def test_spread_needs_three() -> None:
    assert spread_of(trials([1.0, 2.0])) is None
    assert spread_of(trials([1.0, 2.0, 3.0])) == pytest.approx(1.0)


# --- over several runs ---


def in_run(pk: int, metrics: list[float], *, sigma: float | None = 1.0) -> list[Trial]:
    run = Run(pk=pk, sigma=sigma, minimize=True)
    return [Trial(run=run, number=i, metric=m, status="discarded") for i, m in enumerate(metrics)]


def test_one_run_is_compared_as_before() -> None:
    after, before = in_run(1, [1.0, 2.0, 3.0]), in_run(1, [2.0, 3.5, 4.0])
    assert compare(after, before) == gain(after, before, unit=1.0, minimize=True)


def test_a_slow_host_is_no_loss() -> None:
    """Each run gains one sigma; put together without regard to runs, it would look like a loss."""
    before = in_run(1, [1.0, 1.1, 0.9] * 4) + in_run(2, [9.0, 9.1, 8.9])
    after = in_run(1, [0.0, 0.1, -0.1]) + in_run(2, [8.0, 8.1, 7.9] * 4)
    found = compare(after, before)
    assert found is not None
    assert found.value == pytest.approx(1.0)
    assert (found.runs, found.n, found.n_before) == (2, 15, 15)
    assert found.low > 0
    assert str(found).endswith("in 2 runs)")


@pytest.mark.parametrize(
    "before",
    [
        in_run(2, [1.0, 2.0, 3.0]),  # it was live in another run only
        in_run(1, [1.0, 2.0]),
        [],
    ],
)
def test_no_run_with_enough_of_both_is_not_enough_data(before: list[Trial]) -> None:
    assert compare(in_run(1, [1.0, 2.0, 3.0]), before) is None
    assert compare(in_run(1, [1.0] * 3, sigma=None), in_run(1, [1.0] * 3, sigma=None)) is None


@given(METRICS, METRICS)
def test_two_equal_runs_say_the_same_with_more_certainty(
    after: list[float], before: list[float]
) -> None:
    one = compare(in_run(1, after), in_run(1, before))
    two = compare(in_run(1, after) + in_run(2, after), in_run(1, before) + in_run(2, before))
    assert one is not None
    assert two is not None
    assert two.value == pytest.approx(one.value, abs=1e-9)
    assert two.high - two.low <= one.high - one.low + 1e-9
