import math

import pytest

from mechanisms.ucb_bandit import UpperConfidence
from sandbox.testing import make_trial, make_view, scripted_prior


@pytest.fixture
def view():
    trace = [
        make_trial(0, 1.0, status="kept"),
        make_trial(1, 0.9, changes={"WEIGHT_DECAY": 0.2}, status="kept"),
        make_trial(2, 1.1, changes={"WARMUP_STEPS": 20}),
    ]
    return make_view(trace=trace, prior=scripted_prior([{"WEIGHT_DECAY": 0.3}]))


def test_what_was_never_pulled_comes_first(view):
    mechanism = UpperConfidence()
    pulls, reward = mechanism._statistics(view)
    assert mechanism._score("LEARNING_RATE", pulls, reward) == math.inf
    assert set(mechanism.propose(view, 1)[0].changes) <= set(view.free()) - {"WEIGHT_DECAY", "WARMUP_STEPS"}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_no_more_than_asked(view, count):
    assert 1 <= len(UpperConfidence().propose(view, count)) <= count
