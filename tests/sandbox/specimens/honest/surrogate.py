"""A Gaussian-process surrogate in numpy: expected improvement over random candidates."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sandbox.mechanism import Candidate, Mechanism, View

Array = NDArray[np.float64]
POOL = 128
LENGTH = 0.35
JITTER = 1e-4
WARM_UP = 5


def kernel(a: Array, b: Array) -> Array:
    distance = ((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=-1)
    return np.exp(-0.5 * distance / LENGTH**2)


def expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    z = (best - mean) / deviation
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    cumulative = 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))
    return (best - mean) * cumulative + deviation * density


class Surrogate(Mechanism):
    name = "surrogate"

    def propose(self, view: View, count: int) -> list[Candidate]:
        names = [n for n in view.free() if view.space[n].kind != "choice"]
        done = [t for t in view.trace if t.metric is not None]
        if len(done) < WARM_UP or not names:
            return view.ask(count=count)
        sign = 1.0 if view.minimize else -1.0
        x = np.array([[view.space[n].position(t.config[n]) for n in names] for t in done])
        y = sign * np.array([t.metric for t in done], dtype=float)
        centre, spread = y.mean(), y.std() or 1.0
        y = (y - centre) / spread
        rng = np.random.default_rng(view.random.getrandbits(32))
        pool = np.clip(
            x[np.argmin(y)] + rng.normal(0, 0.25, size=(POOL, len(names))), 0.0, 1.0
        )
        factor = np.linalg.cholesky(kernel(x, x) + JITTER * np.eye(len(x)))
        cross = kernel(pool, x)
        weights = np.linalg.solve(factor.T, np.linalg.solve(factor, y))
        mean = cross @ weights
        inner = np.linalg.solve(factor, cross.T)
        deviation = np.sqrt(np.maximum(1.0 - (inner**2).sum(axis=0), 1e-9))
        score = expected_improvement(mean, deviation, float(y.min()))
        out: list[Candidate] = []
        for index in np.argsort(-score, kind="stable"):
            changes = {n: view.space[n].at(float(p)) for n, p in zip(names, pool[index], strict=True)}
            if not view.space.problems(view.config_of(changes)):
                out.append(Candidate(changes=changes, reason=f"expected gain {score[index]:.3f}"))
            if len(out) == count:
                break
        return out or view.ask(count=count)
