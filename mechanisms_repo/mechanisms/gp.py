"""Gaussian process: tries the candidate with the largest expected improvement.

After SPREAD trials near the start, a Gaussian process with a noise term of its own is fitted to
all trials; failures count as the worst result seen. Candidates are points all over the space and
close to the best ones. For several candidates at once each one is taken for measured with what is
expected of it, so that they spread.
"""

import warnings
from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize
from scipy.stats import norm
from scipy.stats.qmc import LatinHypercube
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from sandbox.mechanism import Candidate, Config, KnobValue, Mechanism, Trial, View

SPREAD = 5  # trials before the model is trusted; they are spread around the best
REACH = 0.3  # how far those are from the best, as a share of each knob's range
WIDE = 96  # candidates all over the space
CLOSE = 120  # candidates close to the best configurations
NEAR = 0.08  # standard deviation of a close candidate's steps, as a share of a knob's range
STEPS = 12  # steps of the search for the kernel's parameters
MOST = 120  # trials that the model is fitted to: the best ones and the latest ones
HUGE = 1e100  # beyond it, or below one by it, results are scaled: their squares have no value
MARGIN = 0.01  # improvement that is not worth a trial, in standard deviations of the results


class GaussianProcess(Mechanism):
    """Expected improvement under a Gaussian process with noise."""

    name = "gp"

    def propose(self, view: View, count: int) -> list[Candidate]:
        """Spread points first, then the most promising ones."""
        if not view.movable():
            return []
        seed = view.random.randrange(2**31)
        if len(view.known()) <= SPREAD:
            return spread(view, count, seed)
        points, results = learned(view)
        chosen: list[Candidate] = []
        taken: list[dict[str, KnobValue]] = []
        model = fitted(points, results)
        for turn in range(count):
            pool = [c for c in candidates(view, seed + turn) if c not in taken]
            if not pool:
                break
            rows = np.array([view.places(config) for config in pool])
            mean, deviation = predicted(model, rows)
            score = improvement(mean, deviation, float(model.predict(points).min()))
            best = int(np.argmax(score))
            said = (
                f"gp: expected {mean[best]:+.2f} +- {deviation[best]:.2f} deviations from the mean"
            )
            chosen.append(Candidate(changes=view.changes_to(pool[best]), reason=said))
            taken.append(pool[best])
            points = np.vstack([points, rows[best]])
            results = np.append(results, mean[best])
            model = GaussianProcessRegressor(model.kernel_, optimizer=None).fit(points, results)
        return chosen


def learned(view: View) -> tuple[np.ndarray, np.ndarray]:
    """Points and their results, lower is better, in standard deviations."""
    known = telling(view)
    sign = 1.0 if view.minimize else -1.0
    good = [sign * trial.metric for trial in known if trial.metric is not None]
    worst = max(good, default=0.0)
    values = np.array([worst if t.metric is None else sign * t.metric for t in known])
    largest = float(np.abs(values).max())
    if largest and not 1 / HUGE <= largest <= HUGE:
        values = values / largest
    spread_of = float(values.std()) or 1.0
    points = np.array([view.places(trial.config) for trial in known])
    return points, (values - values.mean()) / spread_of


def telling(view: View) -> list[Trial]:
    """The valid trials in order; of more than MOST the best half and the latest ones."""
    known = view.known()
    sign = 1.0 if view.minimize else -1.0
    good = [t for t in known[: -MOST // 2] if t.metric is not None]
    good.sort(key=lambda trial: (sign * (trial.metric or 0.0), trial.number))
    kept = {trial.number for trial in [*good[: MOST // 2], *known[-MOST // 2 :]]}
    return known if len(known) <= MOST else [t for t in known if t.number in kept]


def fitted(points: np.ndarray, results: np.ndarray) -> GaussianProcessRegressor:
    """The model; that a bound of its parameters is met is no news."""
    scales = np.full(points.shape[1], 0.5)
    kernel = ConstantKernel(1.0, (0.05, 20.0)) * Matern(scales, (0.1, 5.0), nu=2.5)
    kernel += WhiteKernel(0.05, (1e-4, 0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianProcessRegressor(kernel, optimizer=likeliest).fit(points, results)


def likeliest(
    loss: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray, bounds: np.ndarray
) -> tuple[np.ndarray, float]:
    """The kernel's parameters after a few steps: more of them change little, and cost seconds."""
    options = {"maxiter": STEPS}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return found.x, float(found.fun)


def predicted(model: GaussianProcessRegressor, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the metric itself: the noise of a measurement, which
    scikit-learn adds, is nothing that a better configuration could gain."""
    mean, deviation = model.predict(points, return_std=True)
    noise = model.kernel_.k2.noise_level
    return mean, np.sqrt(np.maximum(deviation**2 - noise, 1e-9))


def improvement(mean: np.ndarray, deviation: np.ndarray, target: float) -> np.ndarray:
    """Expected improvement below `target`: of a normal distribution, what lies below it."""
    gain = target - MARGIN - mean
    z = gain / np.maximum(deviation, 1e-9)
    return gain * norm.cdf(z) + deviation * norm.pdf(z)


def candidates(view: View, seed: int) -> list[dict[str, KnobValue]]:
    """Fresh configurations: all over the space, and close to the three best ones."""
    knobs = len(view.movable())
    rng = np.random.default_rng(seed)
    points = [*LatinHypercube(knobs, rng=rng).random(WIDE)]
    for place in best_places(view):
        steps = rng.normal(0.0, NEAR, (CLOSE // 3, knobs))
        some = rng.random((CLOSE // 3, knobs)) < max(0.3, 1.5 / knobs)
        points += [*np.clip(place + steps * some, 0.0, 1.0)]
    unique = {key(config): config for config in map(view.placed, points)}
    found = [config for config in unique.values() if view.fresh(config)]
    return found or single_steps(view)


def single_steps(view: View) -> list[dict[str, KnobValue]]:
    """All new configurations that differ from the best one in one knob."""
    found = []
    for name in view.movable():
        for value in view.space[name].near(view.best.config[name])[1:]:
            config = view.space.repaired(view.config_of({name: value}), fixed={name, *view.frozen})
            if view.fresh(config):
                found.append(config)
    return found


def key(config: Config) -> str:
    """A configuration as text, to compare it with others."""
    return repr(sorted(config.items()))


def best_places(view: View) -> list[np.ndarray]:
    """The points of the three best trials."""
    sign = 1.0 if view.minimize else -1.0
    good = [(sign * t.metric, t.number, t) for t in view.known() if t.metric is not None]
    return [np.array(view.places(trial.config)) for _, _, trial in sorted(good)[:3]]


def spread(view: View, count: int, seed: int) -> list[Candidate]:
    """Points around the best configuration, as even as possible."""
    centre = np.array(view.places(view.best.config))
    found: dict[str, Candidate] = {}
    for point in LatinHypercube(len(centre), rng=seed).random(4 * count + 4):
        config = view.placed(np.clip(centre + REACH * (2 * point - 1), 0.0, 1.0))
        if view.fresh(config) and len(found) < count:
            found[key(config)] = Candidate(
                changes=view.changes_to(config), reason="gp: spread around the best, to learn"
            )
    if found:
        return list(found.values())
    alone, said = single_steps(view), "gp: one knob alone"
    if not alone:
        alone, said = candidates(view, seed), "gp: somewhere new"
    return [Candidate(changes=view.changes_to(config), reason=said) for config in alone[:1]]
