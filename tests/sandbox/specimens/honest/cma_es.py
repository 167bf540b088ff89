"""A rank-mu covariance matrix adaptation over numeric knobs, rebuilt from the trace each time."""

from __future__ import annotations

import numpy as np

from sandbox.mechanism import Candidate, Mechanism, View

FLOOR = 0.05
ELITE = 0.4


class CovarianceAdaptation(Mechanism):
    """Stateless: mean and covariance come from the best share of the trials so far."""

    name = "cma_es"

    def _elite(self, view: View, names: list[str]) -> np.ndarray:
        done = [t for t in view.trace if t.metric is not None]
        done.sort(key=lambda t: t.metric if view.minimize else -t.metric)
        keep = max(3, int(ELITE * len(done)))
        return np.asarray([[view.space[n].position(t.config[n]) for n in names] for t in done[:keep]])

    def propose(self, view: View, count: int) -> list[Candidate]:
        names = [n for n in view.free() if view.space[n].kind != "choice"]
        elite = self._elite(view, names)
        if len(elite) < 3:
            return view.ask(count=count)
        ranks = np.arange(1, len(elite) + 1)
        weights = np.log(len(elite) + 0.5) - np.log(ranks)
        weights = weights / weights.sum()
        mean = weights @ elite
        centred = elite - mean
        covariance = (weights[:, None] * centred).T @ centred + FLOOR**2 * np.eye(len(names))
        rng = np.random.default_rng(view.random.getrandbits(64))
        result: list[Candidate] = []
        for sample in rng.multivariate_normal(mean, covariance, size=64):
            changes = {n: view.space[n].at(float(x)) for n, x in zip(names, np.clip(sample, 0, 1), strict=True)}
            changes = {n: v for n, v in changes.items() if v != view.best.config[n]}
            if changes and not view.space.problems(view.config_of(changes)):
                result.append(Candidate(changes=changes, reason="drawn from the elite's covariance"))
            if len(result) >= count:
                break
        return result or view.ask(count=count)
