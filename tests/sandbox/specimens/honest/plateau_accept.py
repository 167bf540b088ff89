"""Keeps ties and small losses on a plateau, and remembers nothing outside of the trace."""

from functools import lru_cache
from itertools import takewhile

from sandbox.mechanism import Candidate, Mechanism, Trial, View

TOLERANCE = 0.01


@lru_cache(maxsize=None)
def allowance(streak: int) -> float:
    return TOLERANCE * min(streak, 10)


class PlateauAccept(Mechanism):
    name = "plateau_accept"

    def accept(self, trial: Trial, view: View) -> bool:
        if super().accept(trial, view):
            return True
        streak = sum(1 for _ in takewhile(lambda t: t.status != "kept", reversed(view.trace)))
        best = view.best.metric
        if trial.metric is None or best is None:
            return False
        loss = (trial.metric - best) if view.minimize else (best - trial.metric)
        return loss <= allowance(streak)
