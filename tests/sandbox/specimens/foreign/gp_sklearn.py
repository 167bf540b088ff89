"""Bayesian optimisation with a Gaussian process regressor and expected improvement."""
import numpy as np
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel, ConstantKernel as C
from typing import Dict, List, Tuple, Any


class ExpectedImprovement:
    """Acquisition function: EI(x) = E[max(0, f* - f(x))]."""

    def __init__(self, xi: float = 0.01):
        self.xi = xi

    def __call__(self, X: np.ndarray, gp: GaussianProcessRegressor, y_best: float) -> np.ndarray:
        mu, sigma = gp.predict(X, return_std=True)
        sigma = np.maximum(sigma, 1e-9)
        imp = y_best - mu - self.xi
        z = imp / sigma
        return imp * norm.cdf(z) + sigma * norm.pdf(z)


class GPRegressorProposer:
    def __init__(self, bounds: Dict[str, Tuple[float, float]], n_candidates: int = 1000, seed: int = 42):
        self.bounds = bounds
        self.names = list(bounds)
        self.n_candidates = n_candidates
        self.rng = np.random.RandomState(seed)
        self.gp = GaussianProcessRegressor(
            kernel=C(1.0) * Matern(nu=2.5) + WhiteKernel(1e-5), normalize_y=True, n_restarts_optimizer=5
        )
        self.acq = ExpectedImprovement()
        self.X: List[List[float]] = []
        self.y: List[float] = []

    def update(self, params: Dict[str, float], loss: float) -> None:
        self.X.append([params[n] for n in self.names])
        self.y.append(loss)

    def propose(self) -> Dict[str, Any]:
        low, high = zip(*self.bounds.values())
        grid = self.rng.uniform(low, high, size=(self.n_candidates, len(self.names)))
        if len(self.y) < 3:
            return dict(zip(self.names, grid[0]))
        self.gp.fit(np.array(self.X), np.array(self.y))
        scores = self.acq(grid, self.gp, min(self.y))
        return dict(zip(self.names, grid[int(np.argmax(scores))]))
