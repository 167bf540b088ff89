"""Late-acceptance hill climbing: a trial competes with the best of some steps ago."""

from collections import deque
from typing import Any

from sandbox.mechanism import Mechanism, Trial, View

HISTORY = 4


class LateAcceptance(Mechanism):
    name = "late_acceptance"

    def __init__(self) -> None:
        self.history: deque[float] = deque(maxlen=HISTORY)

    def accept(self, trial: Trial, view: View) -> bool:
        if trial.metric is None:
            return False
        if super().accept(trial, view):
            return True
        return len(self.history) == HISTORY and view.better(trial.metric, self.history[0])

    def observe(self, trial: Trial, view: View) -> None:
        if view.best.metric is not None:
            self.history.append(view.best.metric)

    def state(self) -> dict[str, Any]:
        return {"history": list(self.history)}

    def restore(self, state: dict[str, Any]) -> None:
        self.history = deque((float(x) for x in state.get("history", [])), maxlen=HISTORY)
