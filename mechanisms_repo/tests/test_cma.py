"""CMA-ES is rebuilt from the trace, and takes the prior's candidates for its own."""

import pytest
from mechanisms.cma import POPULATION, PRIOR_SHARE, Evolution, evolved

from sandbox.mechanism import Knob, Space
from sandbox.testing import awkward_views, faults, make_trial, make_view, scripted_prior

PLANE = Space(
    {n: Knob(kind="float", default=0.5, low=0.0, high=1.0) for n in ("X", "Y")},
)


def generations(count, toward):
    """So many whole generations in which the trials nearer to `toward` were better."""
    trials = [make_trial(0, 1.0, config=PLANE.defaults(), status="kept")]
    for i in range(1, count * POPULATION + 1):
        place = (i * 7 % 20) / 20
        metric = abs(place - toward)
        trials.append(make_trial(i, metric, config={"X": place, "Y": 0.5 + 0.01 * (i % 3)}))
    return make_view(trace=trials, space=PLANE)


@pytest.mark.parametrize("toward", [0.1, 0.9])
def test_the_mean_moves_to_where_trials_were_better(toward):
    mean = evolved(generations(4, toward)).mean
    assert (mean[0] < 0.5) == (toward < 0.5)


def test_a_generation_that_is_not_whole_is_not_told():
    whole, more = generations(2, 0.2), generations(3, 0.2)
    assert evolved(whole).generation == 2
    partly = make_view(trace=more.trace[: len(whole.trace) + POPULATION - 1], space=PLANE)
    assert evolved(partly).generation == 2


def test_the_prior_gets_its_share():
    asked = 0
    for seed in range(60):
        prior = scripted_prior([{"ACTIVATION": "relu"}])
        Evolution().propose(make_view(prior=prior, seed=seed), 1)
        asked += len(prior.asked)
    assert abs(asked / 60 - PRIOR_SHARE) < 0.25


@pytest.mark.parametrize("odd", awkward_views())
def test_proposals_are_new_valid_and_free_whatever_the_view(odd):
    view, again = awkward_views()[odd], awkward_views()[odd]
    answers = Evolution().propose(view, 3)
    assert faults(answers, view, 3) == []
    assert bool(answers) == (odd != "exhausted")
    assert answers == Evolution().propose(again, 3)
