import numpy as np
import pytest

from mechanisms.response_surface import ResponseSurface
from sandbox.testing import example_space, make_trial, make_view, scripted_prior


def bowl(space, config):
    x, y = (space[n].position(config[n]) for n in ("LEARNING_RATE", "WEIGHT_DECAY"))
    return (x - 0.6) ** 2 + (y - 0.3) ** 2


def test_finds_the_bottom_of_a_bowl():
    space, rng = example_space(), np.random.default_rng(0)
    trace = []
    for number in range(14):
        changes = {n: space[n].at(float(p)) for n, p in zip(("LEARNING_RATE", "WEIGHT_DECAY"), rng.random(2))}
        config = {**space.defaults(), **changes}
        status = "kept" if number == 0 else "discarded"
        trace.append(make_trial(number, bowl(space, config), changes=changes, config=config, status=status))
    view = make_view(trace=trace, prior=scripted_prior([{"WARMUP_STEPS": 3}]))
    changes = ResponseSurface().propose(view, 1)[0].changes
    assert space["LEARNING_RATE"].position(changes["LEARNING_RATE"]) == pytest.approx(0.6, abs=0.05)
    np.testing.assert_allclose(space["WEIGHT_DECAY"].position(changes["WEIGHT_DECAY"]), 0.3, atol=0.05)
