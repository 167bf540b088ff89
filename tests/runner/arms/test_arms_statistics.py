"""The numbers of an ablation: the answer of an arm, intervals, paired tests."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from runner.arms import statistics
from runner.arms.runs import best_config


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
