import random
from statistics import fmean

from mechanisms.importance import Importance, eta_squared
from sandbox.testing import example_space, make_trial, make_view, scripted_prior


def test_eta_squared():
    assert eta_squared([[1.0], [2.0]]) is None
    assert eta_squared([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]) == 1.0
    rng = random.Random(3)
    noise = [[rng.gauss(0, 1) for _ in range(50)] for _ in range(3)]
    assert eta_squared(noise) < 0.2
    assert fmean(noise[0]) < 1


def test_the_knob_that_matters_is_varied():
    space = example_space()
    trace = [make_trial(0, 1.0, status="kept")]
    for number in range(1, 13):
        decay = number / 13
        trace.append(make_trial(number, 1.0 + decay, changes={"WEIGHT_DECAY": decay}, config=space.defaults()))
    view = make_view(trace=trace, prior=scripted_prior([{"WARMUP_STEPS": 5}]))
    assert Importance()._ranking(view)[0][1] == "WEIGHT_DECAY"
    assert Importance().propose(view, 1)
