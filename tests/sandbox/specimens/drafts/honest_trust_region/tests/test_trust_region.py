from mechanisms.trust_region import TrustRegion
from sandbox.testing import make_trial, make_view, scripted_prior


def lengths(statuses):
    mechanism = TrustRegion()
    for number, status in enumerate(statuses, start=1):
        mechanism.observe(make_trial(number, 1.0, status=status), make_view())
        yield mechanism.memory["length"]


def test_doubles_and_halves():
    assert list(lengths(["kept"])) == [0.6]
    assert list(lengths(["discarded"] * 3))[-1] == 0.15


def test_the_same_seed_gives_the_same():
    answers = [
        TrustRegion().propose(make_view(seed=5, prior=scripted_prior([{"WEIGHT_DECAY": 0.4}])), 2)
        for _ in range(2)
    ]
    assert answers[0] == answers[1]
