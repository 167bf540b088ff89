from mechanisms.adaptive_exploration import AdaptiveExploration, AdaptiveExplorationController, ExplorationMode
from sandbox.testing import make_trial, make_view


def test_rate_falls_after_a_gain():
    controller = AdaptiveExplorationController(rate=0.5)
    controller.update(True)
    assert controller.rate < 0.5
    assert controller.mode(0.0) is ExplorationMode.EXPLORE


def test_observe():
    mechanism = AdaptiveExploration()
    mechanism.observe(make_trial(1, 0.9, status="kept"), make_view())
    assert mechanism.state()["rate"] < 0.3
