"""Annealed acceptance: a worse trial may be kept, less and less often. Accept only."""

import math

from sandbox.mechanism import Mechanism, Trial, View

START = 0.1
COOLING = 0.93


class Annealing(Mechanism):
    name = "annealing"

    def accept(self, trial: Trial, view: View) -> bool:
        if trial.metric is None or view.best.metric is None:
            return trial.metric is not None
        if view.better(trial.metric, view.best.metric):
            return True
        worse = abs(trial.metric - view.best.metric)
        temperature = START * COOLING ** len(view.trace)
        return view.random.random() < math.exp(-worse / max(temperature, 1e-9))
