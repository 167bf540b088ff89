"""The Gaussian process finds the better side of a knob, and learns from failures."""

import numpy as np
import pytest
from mechanisms.gp import (
    MOST,
    GaussianProcess,
    best_places,
    fitted,
    improvement,
    learned,
    predicted,
    telling,
)

from sandbox.mechanism import Knob, Space
from sandbox.testing import awkward_views, faults, make_trial, make_view

SPACE = Space({"X": Knob(kind="float", default=0.5, low=0.0, high=1.0)})


def line(*points, minimize=True):
    """Trials at the given places; their metric is the place, None for a negative one."""
    trials = [
        make_trial(i, None if x < 0 else x, config={"X": abs(x)}, status=None if i else "kept")
        for i, x in enumerate(points)
    ]
    return make_view(trace=trials, space=SPACE, minimize=minimize)


SEEN = (0.5, 0.4, 0.3, 0.45, 0.6, 0.7, 0.35, 0.55, 0.65, 0.5, 0.48, 0.52)


@pytest.mark.parametrize(("minimize", "lower"), [(True, True), (False, False)])
def test_it_goes_where_the_trend_points(minimize, lower):
    (answer,) = GaussianProcess().propose(line(*SEEN, minimize=minimize), 1)
    assert (answer.changes["X"] < 0.5) == lower


def test_a_failure_counts_as_the_worst_result_seen():
    points, results = learned(line(0.5, 0.4, -0.9, 0.7))
    assert points[:, 0].tolist() == [0.5, 0.4, 0.9, 0.7]
    assert results[2] == results[3] == results.max()


def test_the_noise_of_a_measurement_is_no_hope_of_a_gain():
    rng = np.random.default_rng(0)
    places = np.repeat(np.linspace(0.0, 1.0, 5), 8)[:, None]
    metrics = 4 * (places[:, 0] - 0.5) ** 2 + rng.normal(0.0, 0.3, len(places))
    model = fitted(places, (metrics - metrics.mean()) / metrics.std())
    seen, deviation = predicted(model, np.array([[0.5]]))
    mean, with_noise = model.predict(np.array([[0.5]]), return_std=True)
    assert seen[0] == mean[0]
    assert 0 < deviation[0] < 0.5 * with_noise[0]


def test_expected_improvement_is_what_lies_below_the_target():
    mean, deviation = np.array([1.0, 0.0, -1.0, 0.0]), np.array([1.0, 1.0, 1.0, 3.0])
    drawn = np.random.default_rng(0).normal(mean, deviation, (200_000, 4))
    expected = np.maximum(0.2 - drawn, 0.0).mean(axis=0)
    assert improvement(mean, deviation, 0.21) == pytest.approx(expected, abs=0.02)
    assert (improvement(mean, np.zeros(4), 0.21) >= 0).all()


def test_the_best_places_come_first():
    assert [p[0] for p in best_places(line(0.5, 0.9, 0.2, -0.1, 0.3))] == [0.2, 0.3, 0.5]


@pytest.mark.parametrize("odd", awkward_views())
def test_proposals_are_new_valid_and_free_whatever_the_view(odd):
    view, again = awkward_views()[odd], awkward_views()[odd]
    answers = GaussianProcess().propose(view, 3)
    assert faults(answers, view, 3) == []
    assert bool(answers) == (odd != "exhausted")
    assert answers == GaussianProcess().propose(again, 3)


def test_of_a_long_trace_the_best_and_the_latest_trials_are_used():
    trials = [make_trial(0, 9.0, status="kept")]
    trials += [make_trial(i, 5.0 if i == 7 else 6.0 + i / 100) for i in range(1, 500)]
    used = [trial.number for trial in telling(make_view(trace=trials))]
    assert len(used) == MOST
    assert used == sorted(used)
    assert 7 in used
    assert used[-MOST // 2 :] == list(range(500 - MOST // 2, 500))
