"""Pathfinder walks the batch first, then trusts a model that ignores lucky results."""

import math
from dataclasses import replace

import numpy as np
import pytest
from mechanisms.pathfinder import MOST, Model, Pathfinder, squeezed, stride, telling

from sandbox.mechanism import Knob, Space
from sandbox.testing import awkward_views, faults, make_trial, make_view

BATCH = Space(
    {
        "SIZE": Knob(kind="power_of_two", default=2048, low=16, high=4096),
        "RATE": Knob(kind="float", default=0.1, low=0.001, high=1.0, log=True),
    }
)


def walk(best):
    """The sizes that a whole walk tries where `best` is the best one."""
    config = BATCH.defaults()
    trials = [make_trial(0, 7.0, config=config, status="kept")]
    trials = [replace(trials[0], metric=away(config["SIZE"], best))]
    while candidate := stride(make_view(trace=trials, space=BATCH)):
        config = {**trials[-1].config, **candidate.changes}
        metric = away(config["SIZE"], best)
        better = metric < min(t.metric for t in trials)
        trials.append(
            make_trial(len(trials), metric, config=config, status="kept" if better else None)
        )
        trials[-1] = replace(trials[-1], changes=candidate.changes)
    return [trial.config["SIZE"] for trial in trials]


def away(size, best):
    return abs(math.log2(size) - math.log2(best)) + 1.0


@pytest.mark.parametrize("best", [16, 64, 128, 512, 1024, 4096])
def test_a_walk_ends_within_a_doubling_of_the_best_size(best):
    sizes = walk(best)
    assert len(set(sizes)) == len(sizes) <= 7
    assert min(abs(math.log2(size) - math.log2(best)) for size in sizes) <= 1


def test_the_long_side_of_the_batch_comes_first():
    view = make_view(
        space=BATCH, trace=[make_trial(0, 1.0, config=BATCH.defaults(), status="kept")]
    )
    (answer, other) = Pathfinder().propose(view, 2)
    assert answer.changes["SIZE"] < 2048
    assert other.changes != answer.changes


def test_a_short_scale_is_left_to_the_model():
    short = Space({**BATCH, "SIZE": Knob(kind="power_of_two", default=256, low=64, high=1024)})
    trace = [make_trial(0, 1.0, config=short.defaults(), status="kept")]
    assert stride(make_view(space=short, trace=trace)) is None
    assert Pathfinder().propose(make_view(space=short, trace=trace), 1)


def bowl(noise=0.0):
    """Trials along one knob with the best place at 0.3, and a lucky one far away."""
    places = [0.5, 0.1, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 0.85]
    metrics = [1 + (x - 0.3) ** 2 for x in places]
    trials = [
        make_trial(i, m, changes={"WEIGHT_DECAY": x}, status="kept" if i == 0 else None)
        for i, (x, m) in enumerate(zip(places, metrics, strict=True))
    ]
    return replace(make_view(trace=trials), noise=noise)


def test_the_model_knows_a_curve_from_its_trials():
    view = bowl()
    model = Model(view)
    configs = [{**view.best.config, "WEIGHT_DECAY": x} for x in (0.3, 0.88)]
    mean, deviation = model.predict(np.array([view.places(config) for config in configs]))
    assert mean[0] < mean[1]
    assert (deviation > 0).all()


def test_a_lucky_result_where_the_model_expects_nothing_is_not_kept():
    view = bowl(noise=0.2)
    lucky = make_trial(10, 0.99, changes={"WEIGHT_DECAY": 0.9})
    assert view.gain(lucky) > 0
    assert not Pathfinder().accept(lucky, view)
    assert Pathfinder().accept(make_trial(10, 0.2, changes={"WEIGHT_DECAY": 0.9}), view)


def test_bad_results_are_drawn_together_in_the_same_order():
    values, slope = squeezed(np.array([1.0, 1.1, 1.2, 9.0, np.inf]))
    assert values.tolist() == sorted(values)
    assert values[3] - values[2] < 7.8
    assert values[4] == values[3]
    assert slope[0] == 1.0


@pytest.mark.parametrize("odd", awkward_views())
def test_proposals_are_new_valid_and_free_whatever_the_view(odd):
    view, again = awkward_views()[odd], awkward_views()[odd]
    answers = Pathfinder().propose(view, 3)
    assert faults(answers, view, 3) == []
    assert bool(answers) == (odd != "exhausted")
    assert answers == Pathfinder().propose(again, 3)


def test_of_a_long_trace_the_best_and_the_latest_trials_are_used():
    trials = [make_trial(0, 9.0, status="kept")]
    trials += [make_trial(i, 5.0 if i == 7 else 6.0 + i / 100) for i in range(1, 500)]
    used = [trial.number for trial in telling(make_view(trace=trials))]
    assert len(used) == MOST
    assert used == sorted(used)
    assert 7 in used
    assert used[-MOST // 2 :] == list(range(500 - MOST // 2, 500))
