"""Annealing takes worse trials while it is hot, and goes back when it is cold."""

from dataclasses import replace

import pytest
from mechanisms.annealing import HEAT, Annealing, way_back

from sandbox.mechanism import Knob, Space
from sandbox.testing import awkward_views, faults, make_trial, make_view


def course(*metrics):
    """Trials with these metrics on one knob; the last one is the base."""
    trials = [
        make_trial(i, m, changes={"WEIGHT_DECAY": round(0.1 + i / 1000, 4)}, status="kept")
        for i, m in enumerate(metrics)
    ]
    return make_view(trace=trials)


def begun(start):
    """One that was loaded when there were so many trials beside the baseline."""
    mechanism = Annealing()
    mechanism.restore({"start": start})
    return mechanism


def taken(view, metric, start=0):
    """How many of a hundred worse trials would be accepted."""
    trial = make_trial(len(view.trace), metric, changes={"WARMUP_STEPS": 77})
    return sum(
        begun(start).accept(trial, replace(view, random=make_view(seed=seed).random))
        for seed in range(100)
    )


def test_worse_trials_are_taken_the_less_the_worse_they_are():
    view = course(1.0, 1.4, 1.2, 1.0)
    assert taken(view, 0.9) == 100
    assert 100 > taken(view, 1.02) > taken(view, 1.3)
    assert taken(view, 30.0) == 0


def test_worse_trials_are_never_taken_when_it_is_cold():
    view = course(*[1.4, 1.2] * 60, 1.0)
    assert begun(0).temperature(view) == 0.0
    assert taken(view, 1.001) == 0
    assert taken(view, 0.999) == 100


def test_it_begins_hot_whenever_it_is_loaded_and_a_new_worker_goes_on_cooling():
    late = course(*[1.4, 1.2] * 60, 1.0)
    mechanism = Annealing()
    assert mechanism.state() == {}
    mechanism.propose(replace(late, prior=lambda _guidance, _count: []), 1)
    assert 0.7 * HEAT < mechanism.temperature(late) < HEAT
    assert mechanism.state() == {"start": len(late.trace) - 1}
    assert taken(late, 1.001, start=len(late.trace) - 1) > 50
    more = replace(late, trace=(*late.trace, *late.trace))
    again = Annealing()
    again.restore(mechanism.state())
    assert again.temperature(more) == 0.0


def test_in_a_small_space_everything_is_tried():
    values = Knob(kind="choice", default="a", choices=("a", "b", "c"))
    space = Space({"ONE": values, "TWO": values})
    trace = [make_trial(0, 1.0, config=space.defaults(), status="kept")]
    for number in range(1, 9):
        view = make_view(trace=trace, space=space, seed=number, prior=lambda _guidance, _count: [])
        (answer,) = begun(0).propose(view, 1)
        assert faults([answer], view, 1) == []
        trace.append(make_trial(number, 2.0, config=view.config_of(answer.changes)))


def test_when_cold_it_goes_back_to_the_best_ever_once():
    view = course(1.0, 0.5, *[1.4, 1.2] * 60)
    (back,) = begun(0).propose(view, 1)
    assert view.config_of(back.changes) == view.trace[1].config
    again = make_trial(len(view.trace), 0.6, config=view.trace[1].config)
    assert way_back(replace(view, trace=(*view.trace, again))) is None
    warm = replace(course(1.0, 0.5, 0.9), prior=lambda _guidance, _count: [])
    (step,) = Annealing().propose(warm, 1)
    assert warm.config_of(step.changes) != warm.trace[1].config


@pytest.mark.parametrize("odd", awkward_views())
def test_proposals_are_new_valid_and_free_whatever_the_view(odd):
    view, again = awkward_views()[odd], awkward_views()[odd]
    answers = Annealing().propose(view, 3)
    assert faults(answers, view, 3) == []
    assert bool(answers) == (odd != "exhausted")
    assert answers == Annealing().propose(again, 3)
