"""A Gaussian process of scikit-learn with expected improvement, as the paper meant it."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from sandbox.mechanism import Candidate, Mechanism, View

POOL = 64


class SklearnGP(Mechanism):
    name = "sklearn_gp"

    def propose(self, view: View, count: int) -> list[Candidate]:
        done = [t for t in view.trace if t.metric is not None]
        if len(done) < 6 or len(view.trace) % 3:
            return view.ask(count=count)
        names = view.free()
        x = np.array([[view.space[n].position(t.config[n]) for n in names] for t in done])
        y = np.array([t.metric if view.minimize else -t.metric for t in done])
        kernel = ConstantKernel(1.0) * Matern(nu=2.5) + WhiteKernel(1e-3)
        model = GaussianProcessRegressor(kernel=kernel, normalize_y=True, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=ConvergenceWarning)
            model.fit(x, y)
        rng = np.random.default_rng(view.random.getrandbits(32))
        pool = np.clip(x[int(y.argmin())] + rng.normal(0, 0.15, (POOL, len(names))), 0, 1)
        mean, deviation = model.predict(pool, return_std=True)
        z = (y.min() - mean) / np.maximum(deviation, 1e-9)
        gain = (y.min() - mean) * norm.cdf(z) + deviation * norm.pdf(z)
        out: list[Candidate] = []
        for index in np.argsort(-gain, kind="stable"):
            changes = {n: view.space[n].at(float(p)) for n, p in zip(names, pool[index], strict=True)}
            if not view.space.problems(view.config_of(changes)):
                out.append(Candidate(changes=changes, reason=f"expected gain {gain[index]:.4f}"))
            if len(out) == count:
                break
        return out or view.ask(count=count)
