import pytest

from mechanisms.tabu import Tabu
from sandbox.mechanism import Candidate
from sandbox.testing import make_trial, make_view, scripted_prior


@pytest.mark.parametrize("count", [1, 3])
def test_asks_again_for_what_was_tried(count):
    prior = scripted_prior([{"WEIGHT_DECAY": 0.2}, {"WEIGHT_DECAY": 0.3}])
    view = make_view(
        trace=[make_trial(0, 1.0, status="kept"), make_trial(1, 1.1, changes={"WEIGHT_DECAY": 0.2})],
        prior=prior,
    )
    found = Tabu().propose(view, count)
    assert Candidate(changes={"WEIGHT_DECAY": 0.2}, reason="scripted") not in found
    assert 1 <= len(found) <= count


def test_state_survives():
    one, two = Tabu(), Tabu()
    one.propose(make_view(prior=scripted_prior([{"WEIGHT_DECAY": 0.2}])), 1)
    two.restore(one.state())
    assert two.state() == one.state()
