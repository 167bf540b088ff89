"""A batch keeps its distance, within a radius that follows success."""

import numpy as np
import pytest
from mechanisms.batch import RADIUS, Batch, radius

from sandbox.testing import awkward_views, faults, make_trial, make_view


def after(*statuses):
    """A view after trials that were kept or not."""
    trials = [make_trial(0, 1.0, status="kept")]
    trials += [make_trial(i + 1, 1.0, status=status) for i, status in enumerate(statuses)]
    return make_view(trace=trials)


def test_the_radius_follows_success():
    assert radius(after()) == RADIUS
    assert radius(after("discarded")) < RADIUS < radius(after("kept"))
    assert radius(after(*["discarded"] * 200)) > 0


def test_a_batch_is_spread_wider_than_the_best_of_the_pool_alone():
    view = awkward_views()["long"]
    answers = Batch().propose(view, 6)
    points = np.array([view.places(view.config_of(a.changes)) for a in answers])
    apart = [np.abs(a - b).max() for i, a in enumerate(points) for b in points[:i]]
    assert len(answers) == 6
    assert min(apart) > 0


def test_one_candidate_is_the_first_of_a_batch():
    one = Batch().propose(awkward_views()["long"], 1)
    assert one == Batch().propose(awkward_views()["long"], 5)[:1]


@pytest.mark.parametrize("odd", awkward_views())
def test_proposals_are_new_valid_and_free_whatever_the_view(odd):
    view, again = awkward_views()[odd], awkward_views()[odd]
    answers = Batch().propose(view, 3)
    assert faults(answers, view, 3) == []
    assert bool(answers) == (odd != "exhausted")
    assert answers == Batch().propose(again, 3)
