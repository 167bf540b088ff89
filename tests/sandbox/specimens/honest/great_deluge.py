"""Great deluge: a water level that sinks with every trial decides what is kept."""

from sandbox.mechanism import Mechanism, Trial, View

RAIN = 0.004
HEADROOM = 0.03


class GreatDeluge(Mechanism):
    """Keeps whatever stays dry. The level starts above the baseline and sinks at a fixed rate."""

    name = "great_deluge"

    def _level(self, view: View) -> float:
        first = next(t.metric for t in view.trace if t.metric is not None)
        allowance = HEADROOM * abs(first) - RAIN * abs(first) * len(view.trace)
        return first + allowance if view.minimize else first - allowance

    def accept(self, trial: Trial, view: View) -> bool:
        if trial.metric is None:
            return False
        if view.best.metric is None or view.better(trial.metric, view.best.metric):
            return True
        return view.better(trial.metric, self._level(view))
