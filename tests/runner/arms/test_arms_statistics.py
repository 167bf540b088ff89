"""The numbers of an ablation: the answer of an arm, intervals, paired tests."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from runner.arms import statistics
from runner.arms.runs import Record, best_config
from runner.arms.score import Yardstick, score_arm


def test_the_answer_is_the_best_mean_not_the_luckiest_training():
    trainings = [
        {"config": {"A": 1}, "metric": 1.0, "failure": ""},
        {"config": {"A": 1}, "metric": 4.0, "failure": ""},
        {"config": {"A": 2}, "metric": 2.0, "failure": ""},
        {"config": {"A": 3}, "metric": None, "failure": "nan"},
    ]
    assert best_config([5.0], trainings, {"A": 0}, 1.0) == {"A": 2}
    assert best_config([5.0], trainings, {"A": 0}, -1.0) == {"A": 0}


@settings(max_examples=50)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=20))
def test_intervals_are_the_textbooks(values):
    found = statistics.summary(values)
    assert found.mean == pytest.approx(np.mean(values))
    if np.std(values) > 1e-6:
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize(
    ("remeasured", "failed", "final"),
    [([], 0, 3.0), ([3.5, 4.0], 1, 3.75), ([2.0], 1, 5.0), ([2.0], 2, 5.0), ([], 3, 5.0)],
)
def test_an_answer_that_mostly_fails_anew_is_worth_no_more_than_the_default(
    remeasured, failed, final
):
    record = Record(
        arm="A",
        repeat=0,
        seed=0,
        prior="",
        level2="",
        baseline=[5.0],
        trainings=[{"config": {"X": 1}, "metric": 3.0, "failure": ""}],
        trials=1,
        mechanisms=[],
        events=[],
        remeasured=remeasured,
        remeasured_failed=failed,
    )
    stick = Yardstick(
        sign=1.0,
        default={"X": 0},
        scale=5.0,
        table=None,
        optimum=None,
        sigma=None,
        noise="",
        target=None,
        host={},
    )
    assert score_arm([record], stick, 1).final == (final,)


def test_paired_comparisons():
    one = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    same = statistics.paired(one, one)
    assert (same.identical, same.p, same.better, same.worse) == (True, 1.0, 0, 0)
    clear = statistics.paired([x - 1 - x / 10 for x in one], one)
    assert (clear.better, clear.worse) == (6, 0)
    assert clear.p == pytest.approx(2 / 2**6)
    assert statistics.paired([1.0], [2.0]).p is None
    with pytest.raises(ValueError, match="zip"):
        statistics.paired([1.0], one)
    with pytest.raises(ValueError, match="no values"):
        statistics.summary([])


def test_p_values_are_corrected_by_holm():
    given_ = {"a": 0.01, "b": 0.04, "c": 0.03, "d": None}
    assert statistics.holm(given_) == {
        "a": pytest.approx(0.03),
        "c": pytest.approx(0.06),
        "b": pytest.approx(0.06),
        "d": None,
    }
