from mechanisms.late_acceptance import HISTORY, LateAcceptance
from sandbox.testing import make_trial, make_view


class TestLateAcceptance:
    def setup_method(self):
        self.mechanism = LateAcceptance()

    def test_better_is_kept(self):
        assert self.mechanism.accept(make_trial(1, 0.5), make_view())

    def test_worse_is_kept_against_the_past(self):
        for _ in range(HISTORY):
            self.mechanism.observe(make_trial(1, 1.0), make_view())
        self.mechanism.history[0] = 2.0
        assert self.mechanism.accept(make_trial(9, 1.5), make_view())
        assert not self.mechanism.accept(make_trial(9, 2.5), make_view())

    def test_failed_is_never_kept(self):
        assert not self.mechanism.accept(make_trial(1, None), make_view())
