"""The placebo must run and change nothing."""

from mechanisms.placebo import Placebo

from sandbox.mechanism import Mechanism
from sandbox.testing import make_trial, make_view, scripted_prior


def test_it_tries_what_the_prior_says():
    prior = scripted_prior([{"WEIGHT_DECAY": 0.2}, {"WARMUP_STEPS": 20}])
    answers = Placebo().propose(make_view(prior=prior), 2)
    assert [dict(a.changes) for a in answers] == [{"WEIGHT_DECAY": 0.2}, {"WARMUP_STEPS": 20}]
    assert prior.asked == [("", 2)]


def test_it_keeps_what_plain_level_1_keeps():
    view = make_view()
    for metric in (0.5, 0.9, 1.0, 1.1):
        trial = make_trial(1, metric)
        assert Placebo().accept(trial, view) == Mechanism().accept(trial, view)


def test_it_counts_on_after_a_restart():
    first, second = Placebo(), Placebo()
    first.observe(make_trial(1, 0.9), make_view())
    second.restore(first.state())
    assert second.state() == {"seen": 1}
