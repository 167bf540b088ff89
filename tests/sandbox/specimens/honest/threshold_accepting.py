"""Threshold accepting: a trial that is worse by less than a shrinking threshold is kept."""

from __future__ import annotations

from itertools import accumulate, chain, repeat

from sandbox.mechanism import Mechanism, Trial, View

THRESHOLDS = list(accumulate(chain([0.05], repeat(0.85, 40)), lambda value, factor: value * factor))


class ThresholdAccepting(Mechanism):
    name = "threshold_accepting"

    def accept(self, trial: Trial, view: View) -> bool:
        if trial.metric is None or view.best.metric is None:
            return trial.metric is not None
        index = min(len(view.trace), len(THRESHOLDS) - 1)
        slack = THRESHOLDS[index] * abs(view.best.metric)
        loss = trial.metric - view.best.metric
        if not view.minimize:
            loss = -loss
        return loss < slack
