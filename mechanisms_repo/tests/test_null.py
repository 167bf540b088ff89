"""The null mechanism must change nothing."""

from mechanisms.null import Null

from sandbox.mechanism import Mechanism
from sandbox.testing import make_trial, make_view, scripted_prior


def test_it_tries_what_the_prior_says():
    prior = scripted_prior([{"WEIGHT_DECAY": 0.2}, {"WARMUP_STEPS": 20}])
    answers = Null().propose(make_view(prior=prior), 2)
    assert [dict(a.changes) for a in answers] == [{"WEIGHT_DECAY": 0.2}, {"WARMUP_STEPS": 20}]
    assert prior.asked == [("", 2)]


def test_it_keeps_what_is_strictly_better():
    view = make_view()
    assert Null().accept(make_trial(1, 0.9), view)
    assert not Null().accept(make_trial(1, 1.0), view)
    assert not Null().accept(make_trial(1, 1.1), view)


def test_it_overrides_no_hook():
    assert Null.propose is Mechanism.propose
    assert Null.accept is Mechanism.accept
    assert Null.observe is Mechanism.observe
    assert Null.state is Mechanism.state
    assert Null.restore is Mechanism.restore
