"""Unit tests of the coordinate descent."""

from mechanisms.coordinate_descent import Axis, CoordinateDescent
from sandbox.mechanism import Candidate
from sandbox.testing import example_space, make_trial, make_view, scripted_prior


def test_axis_halves_after_two_misses():
    axis = Axis()
    axis.missed()
    assert axis.step == 0.25
    axis.missed()
    assert axis.step == 0.125


def test_stays_in_the_space():
    space = example_space()
    view = make_view(space=space, frozen=["LEARNING_RATE"], prior=scripted_prior([{"WEIGHT_DECAY": 0.3}]))
    for candidate in CoordinateDescent().propose(view, 4):
        assert isinstance(candidate, Candidate)
        assert "LEARNING_RATE" not in candidate.changes
        assert not space.problems(view.config_of(candidate.changes))


def test_state_round_trip():
    one = CoordinateDescent()
    view = make_view(prior=scripted_prior([{"WEIGHT_DECAY": 0.3}]))
    one.propose(view, 2)
    one.observe(make_trial(1, 1.2, changes={"LEARNING_RATE": 0.01}), view)
    two = CoordinateDescent()
    two.restore(one.state())
    assert two.state() == one.state()
