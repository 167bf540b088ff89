"""Annealing takes worse trials while it is hot, and goes back when it is cold."""

from dataclasses import replace

import pytest
from mechanisms.annealing import Annealing, temperature, way_back

from sandbox.testing import awkward_views, faults, make_trial, make_view


def course(*metrics):
    """Trials with these metrics on one knob; the last one is the base."""
    trials = [
        make_trial(i, m, changes={"WEIGHT_DECAY": round(0.1 + i / 1000, 4)}, status="kept")
        for i, m in enumerate(metrics)
    ]
    return make_view(trace=trials)


def taken(view, metric):
    """How many of a hundred worse trials would be accepted."""
    trial = make_trial(len(view.trace), metric, changes={"WARMUP_STEPS": 77})
    return sum(
        Annealing().accept(trial, replace(view, random=make_view(seed=seed).random))
        for seed in range(100)
    )


def test_worse_trials_are_taken_the_less_the_worse_they_are():
    view = course(1.0, 1.4, 1.2, 1.0)
    assert taken(view, 0.9) == 100
    assert 100 > taken(view, 1.02) > taken(view, 1.3)
    assert taken(view, 30.0) == 0


def test_worse_trials_are_never_taken_when_it_is_cold():
    view = course(*[1.4, 1.2] * 60, 1.0)
    assert temperature(view) == 0.0
    assert taken(view, 1.001) == 0
    assert taken(view, 0.999) == 100


def test_when_cold_it_goes_back_to_the_best_ever_once():
    view = course(1.0, 0.5, *[1.4, 1.2] * 60)
    (back,) = Annealing().propose(view, 1)
    assert view.config_of(back.changes) == view.trace[1].config
    again = make_trial(len(view.trace), 0.6, config=view.trace[1].config)
    assert way_back(replace(view, trace=(*view.trace, again))) is None
    assert way_back(course(1.0, 0.5, 0.9)) is None


@pytest.mark.parametrize("odd", awkward_views())
def test_proposals_are_new_valid_and_free_whatever_the_view(odd):
    view, again = awkward_views()[odd], awkward_views()[odd]
    answers = Annealing().propose(view, 3)
    if way_back(view) is not None:
        assert answers[0] == way_back(view)  # once more, on purpose
        assert faults(answers[1:], view, 2) == []
        return
    assert faults(answers, view, 3) == []
    assert bool(answers) == (odd != "exhausted")
    assert answers == Annealing().propose(again, 3)
