"""TPE is told of every trial in the trace, and asks the prior for its share."""

import pytest
from mechanisms.tpe import PRIOR_SHARE, Parzen, coded, distributions, pending, told
from optuna.trial import TrialState

from sandbox.mechanism import Knob, Space
from sandbox.testing import (
    awkward_views,
    example_space,
    faults,
    make_trial,
    make_view,
    scripted_prior,
)


def test_the_study_knows_every_valid_trial_and_failures_as_the_worst():
    view = awkward_views()["outside the space"]
    study = told(view)
    assert len(study.trials) == len(view.known())
    values = [trial.value for trial in study.trials]
    measured = [t.metric for t in view.known() if t.metric is not None]
    assert values.count(max(measured)) > measured.count(max(measured))
    assert set(distributions(view)) == set(view.movable())


def test_values_are_positions_and_names_stay_names():
    view = make_view(space=example_space())
    assert coded(view, "ACTIVATION", "relu") == "relu"
    assert coded(view, "WEIGHT_DECAY", 0.25) == 0.25
    assert 0.0 < coded(view, "TOTAL_BATCH_SIZE", 32) < 1.0


def test_the_prior_gets_its_share():
    asked = 0
    for seed in range(60):
        prior = scripted_prior([{"ACTIVATION": "relu"}])
        Parzen().propose(make_view(prior=prior, seed=seed), 1)
        asked += len(prior.asked)
    assert abs(asked / 60 - PRIOR_SHARE) < 0.25


def test_the_study_knows_what_the_prior_proposed_for_the_same_batch():
    view = awkward_views()["long"]
    study = told(view)
    study.add_trial(pending(view, view.trace[3].config))
    assert study.trials[-1].state is TrialState.RUNNING
    assert study.trials[-1].params == study.trials[3].params


def test_in_a_small_space_everything_is_tried():
    values = Knob(kind="choice", default="a", choices=("a", "b", "c"))
    space = Space({"ONE": values, "TWO": values})
    trace = [make_trial(0, 1.0, config=space.defaults(), status="kept")]
    for number in range(1, 9):
        view = make_view(trace=trace, space=space, seed=number, prior=lambda _guidance, _count: [])
        (answer,) = Parzen().propose(view, 1)
        assert faults([answer], view, 1) == []
        trace.append(make_trial(number, 2.0, config=view.config_of(answer.changes)))


@pytest.mark.parametrize("odd", awkward_views())
def test_proposals_are_new_valid_and_free_whatever_the_view(odd):
    view, again = awkward_views()[odd], awkward_views()[odd]
    answers = Parzen().propose(view, 3)
    assert faults(answers, view, 3) == []
    assert bool(answers) == (odd != "exhausted")
    assert answers == Parzen().propose(again, 3)
