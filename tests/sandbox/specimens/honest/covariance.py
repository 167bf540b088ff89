import numpy as np
from sandbox.mechanism import Mechanism, Candidate
SIGMA0 = 0.15
class Covariance(Mechanism):
    """(mu, lambda) with rank-one covariance; state as lists"""
    name = "covariance"
    def __init__(self):
        self.mean = None; self.cov = None; self.sigma = SIGMA0; self.names = []
        self.pending = []
    def _init(self, view):
        self.names = [n for n in view.free() if view.space[n].kind != "choice"]
        self.mean = np.array([view.space[n].position(view.best.config[n]) for n in self.names])
        self.cov = np.eye(len(self.names))
    def propose(self, view, count):
        if self.mean is None or self.names != [n for n in view.free() if view.space[n].kind != "choice"]:
            self._init(view)
        rng = np.random.default_rng(view.random.randrange(2**31))
        out = []
        for _ in range(count):
            for _try in range(10):
                z = rng.multivariate_normal(np.zeros(len(self.names)), self.cov)
                x = np.clip(self.mean + self.sigma * z, 0, 1)
                ch = {n: view.space[n].at(float(v)) for n, v in zip(self.names, x)}
                if not view.space.problems(view.config_of(ch)):
                    out.append(Candidate(changes=ch, reason=f"sigma={self.sigma:.3f}")); break
        return out
    def observe(self, trial, view):
        if self.mean is None or trial.metric is None: return
        if trial.status == "kept":
            x = np.array([view.space[n].position(trial.config[n]) for n in self.names])
            d = (x - self.mean) / max(self.sigma, 1e-6)
            self.cov = 0.9 * self.cov + 0.1 * np.outer(d, d)
            self.mean = 0.5 * self.mean + 0.5 * x
            self.sigma *= 1.1
        else:
            self.sigma = max(0.03, self.sigma * 0.97)
    def state(self):
        return {} if self.mean is None else {"mean": self.mean.tolist(), "cov": self.cov.tolist(), "sigma": float(self.sigma), "names": self.names}
    def restore(self, state):
        if state:
            self.mean = np.array(state["mean"]); self.cov = np.array(state["cov"]); self.sigma = state["sigma"]; self.names = list(state["names"])
