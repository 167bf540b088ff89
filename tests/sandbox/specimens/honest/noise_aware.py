"""Keep only improvements above k sigma; the noise is estimated from repeated configs."""
from __future__ import annotations
import hashlib
import json
import statistics
from typing import Optional
from sandbox.mechanism import Mechanism, Trial, View, Candidate

K_SIGMA: float = 1.5

def _key(config) -> str:
    return hashlib.md5(json.dumps(dict(config), sort_keys=True).encode("utf-8")).hexdigest()

class NoiseAware(Mechanism):
    name = "noise_aware"
    def _sigma(self, view: View) -> Optional[float]:
        groups = {}
        for t in view.trace:
            if t.metric is not None:
                groups.setdefault(_key(t.config), []).append(t.metric)
        stds = [statistics.pstdev(g) for g in groups.values() if len(g) > 1]
        return statistics.mean(stds) if stds else 0.004
    def accept(self, trial: Trial, view: View) -> bool:
        if trial.metric is None:
            return False
        if view.best.metric is None:
            return True
        delta = (view.best.metric - trial.metric) * (1 if view.minimize else -1)
        return bool(delta > K_SIGMA * self._sigma(view))
