"""The tuners of the comparison: well-kept libraries behind one small ask and tell.

Each gets the baseline as its first observation, as the arms with a search loop do, and nothing
else of ours: default settings where the library has some. Randomness comes from the seed alone.
They train nothing.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from runner.levels.diagnosis import movable
from sandbox.mechanism import Config, Knob, KnobValue, Space

CANDIDATES = 2048
STARTUP = 10
STEP_SHARE = 0.3  # CMA-ES: the first step, as a share of each knob's range
MAX_REDRAWS = 100

Vector = NDArray[np.float64]


class Tuner(Protocol):
    """One search method. `tell` gets None for a training that failed; lower is better."""

    def ask(self) -> dict[str, KnobValue]: ...

    def tell(self, config: Config, loss: float | None) -> None: ...


def to_vector(space: Space, config: Config) -> Vector:
    """Positions of the knobs that can move, 0 to 1 each."""
    return np.array([space[name].position(config[name]) for name in movable(space)])


def to_config(space: Space, vector: Vector) -> dict[str, KnobValue]:
    """The nearest configuration that keeps the constraints."""
    config = space.defaults()
    for name, value in zip(movable(space), vector, strict=True):
        config[name] = space[name].at(float(value))
    return space.repaired(config)


def drawn(space: Space, uniform: Vector) -> dict[str, KnobValue]:
    """A configuration from uniform numbers: every level of a knob has the same chance, while
    rounding would give half of it to the first and the last."""
    counts = [levels(space[name]) for name in movable(space)]
    places = [
        float(u) if n < 2 else min(int(u * n), n - 1) / (n - 1)
        for u, n in zip(uniform, counts, strict=True)
    ]
    return to_config(space, np.array(places))


def levels(knob: Knob) -> int:
    """How many values a knob has; 0: a continuum."""
    if knob.kind == "choice":
        return len(knob.choices)
    if knob.kind == "float" or knob.low is None or knob.high is None:
        return 0
    if knob.kind == "power_of_two":
        return int(knob.high).bit_length() - int(knob.low).bit_length() + 1
    return int(knob.high - knob.low) + 1


class Random:
    """Uniform on each knob's own scale."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._rng = np.random.default_rng(seed)

    def ask(self) -> dict[str, KnobValue]:
        """A configuration."""
        return drawn(self._space, self._rng.random(len(movable(self._space))))

    def tell(self, config: Config, loss: float | None) -> None:
        """Nothing is learnt."""


class Tpe:
    """Optuna's tree-structured Parzen estimator; ordered choices as whole numbers."""

    def __init__(self, space: Space, seed: int) -> None:
        import optuna  # noqa: PLC0415 - a second, and only for this arm

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna
        self._space = space
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=STARTUP, multivariate=True
            )
        self._study = optuna.create_study(direction="minimize", sampler=sampler)
        self._axes = {name: self._axis(space[name]) for name in movable(space)}

    def _axis(self, knob: Knob) -> Any:
        kinds = self._optuna.distributions
        if knob.kind == "float":
            return kinds.FloatDistribution(knob.low, knob.high, log=knob.log and bool(knob.low))
        if knob.kind == "choice" and any(isinstance(c, str) for c in knob.choices):
            return kinds.CategoricalDistribution(list(knob.choices))
        return kinds.IntDistribution(0, levels(knob) - 1)

    def _inside(self, config: Config) -> dict[str, Any]:
        return {
            name: round(self._space[name].position(config[name]) * axis.high)
            if isinstance(axis, self._optuna.distributions.IntDistribution)
            else config[name]
            for name, axis in self._axes.items()
        }

    def ask(self) -> dict[str, KnobValue]:
        """The library's proposal."""
        trial = self._study.ask(self._axes)
        self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)  # told anew, as trained
        config = self._space.defaults()
        for name, axis in self._axes.items():
            value = trial.params[name]
            if isinstance(axis, self._optuna.distributions.IntDistribution):
                value = self._space[name].at(value / max(1, axis.high))
            config[name] = value
        return self._space.repaired(config)

    def tell(self, config: Config, loss: float | None) -> None:
        """Add the observation."""
        states = self._optuna.trial.TrialState
        self._study.add_trial(
            self._optuna.trial.create_trial(
                params=self._inside(config),
                distributions=self._axes,
                value=loss,
                state=states.FAIL if loss is None else states.COMPLETE,
            )
        )


class GaussianProcess:
    """scikit-learn's GP (Matern 5/2, a scale each, noise) with expected improvement."""

    def __init__(self, space: Space, seed: int) -> None:
        from scipy.stats import qmc  # noqa: PLC0415

        self._space = space
        self._seed = seed
        self._rng = np.random.default_rng(seed)
        self._start = qmc.Sobol(len(movable(space)), seed=seed).random(STARTUP + 6)
        self._seen: list[tuple[Vector, float | None]] = []
        self._asked = 0

    def ask(self) -> dict[str, KnobValue]:
        """A point of a Sobol sequence at first, then the best expected improvement."""
        self._asked += 1
        good = [(x, y) for x, y in self._seen if y is not None]
        if self._asked < STARTUP or len(good) < 3:
            return drawn(self._space, self._start[self._asked % len(self._start)])
        anywhere, near = self._pool(good)
        pool = [drawn(self._space, row) for row in anywhere]
        pool += [to_config(self._space, row) for row in near]
        points = np.array([to_vector(self._space, config) for config in pool])
        tried = {tuple(x) for x, _ in self._seen}
        new = [i for i, x in enumerate(points) if tuple(x) not in tried] or list(range(len(pool)))
        return pool[new[int(np.argmax(self._improvement(good, points[new])))]]

    def tell(self, config: Config, loss: float | None) -> None:
        """Remember the observation."""
        self._seen.append((to_vector(self._space, config), loss))

    def _pool(self, good: list[tuple[Vector, float]]) -> tuple[Vector, Vector]:
        """Uniform numbers, and points near the best."""
        size = len(movable(self._space))
        best = min(good, key=lambda seen: seen[1])[0]
        near = best + self._rng.normal(0.0, 0.15, (CANDIDATES // 4, size))
        near = np.where(self._rng.random(near.shape) < 0.5, best, near)
        return self._rng.random((CANDIDATES, size)), np.clip(near, 0.0, 1.0)

    def _improvement(self, good: list[tuple[Vector, float]], points: Vector) -> Vector:
        from scipy.stats import norm  # noqa: PLC0415
        from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415
        from sklearn.gaussian_process import GaussianProcessRegressor  # noqa: PLC0415
        from sklearn.gaussian_process.kernels import (  # noqa: PLC0415
            ConstantKernel,
            Matern,
            WhiteKernel,
        )
        from threadpoolctl import threadpool_limits  # noqa: PLC0415

        x = np.array([seen[0] for seen in good])
        y = np.array([seen[1] for seen in good])
        scale = float(y.std()) or 1.0
        y = (y - y.mean()) / scale
        matern = Matern(np.full(x.shape[1], 0.5), (0.05, 10.0), nu=2.5)
        kernel = ConstantKernel(1.0, (0.05, 20.0)) * matern + WhiteKernel(0.05, (1e-4, 1.0))
        model = GaussianProcessRegressor(kernel, n_restarts_optimizer=1, random_state=self._seed)
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, y)
            mean, deviation = model.predict(points, return_std=True)
        deviation = np.maximum(deviation, 1e-9)
        gain = y.min() - mean
        z = gain / deviation
        found: Vector = gain * norm.cdf(z) + deviation * norm.pdf(z)
        return found


class CmaEs:
    """CMA-ES with margin, which knows steps; starts at the default configuration."""

    def __init__(self, space: Space, seed: int) -> None:
        from cmaes import CMAwM  # noqa: PLC0415

        self._space = space
        names = movable(space)
        counts = [levels(space[name]) for name in names]
        self._cma = CMAwM(
            mean=to_vector(space, space.defaults()),
            sigma=STEP_SHARE,
            bounds=np.array([[0.0, 1.0]] * len(names)),
            steps=np.array([1.0 / (n - 1) if n > 1 else 0.0 for n in counts]),
            seed=seed,
        )
        self._asked: list[Vector] = []
        self._told: list[float] = []

    def ask(self) -> dict[str, KnobValue]:
        """The next of the generation."""
        shown, inner = self._cma.ask()
        self._asked.append(inner)
        return to_config(self._space, shown)

    def tell(self, config: Config, loss: float | None) -> None:
        """A whole generation is told at once; what failed counts as its worst."""
        if len(self._asked) <= len(self._told):
            return  # the baseline: the mean is there already
        self._told.append(np.inf if loss is None else loss)
        if len(self._told) < self._cma.population_size:
            return
        known = [loss for loss in self._told if np.isfinite(loss)]
        worst = max(known, default=0.0)
        losses = [loss if np.isfinite(loss) else worst for loss in self._told]
        self._cma.tell(list(zip(self._asked, losses, strict=True)))
        self._asked, self._told = [], []


class LineSearch:
    """What a person would do first: halve or double the batch as long as it helps; then TPE, which
    is told all of it."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._tpe = Tpe(space, seed)
        names = movable(space)
        batches = [n for n in names if "BATCH" in n]
        self._name = next((n for n in batches if "TOTAL" in n), (batches or names)[0])
        self._best: tuple[float, dict[str, KnobValue]] | None = None
        self._directions = [-1, 1]

    def ask(self) -> dict[str, KnobValue]:
        """The next step on the line, or TPE's proposal once neither way helps."""
        while self._directions and self._best is not None:
            config = self._stepped(self._best[1], self._directions[0])
            if config is not None:
                return config
            self._directions.pop(0)
        return self._tpe.ask()

    def _stepped(self, config: Config, sign: int) -> dict[str, KnobValue] | None:
        knob, value = self._space[self._name], config[self._name]
        here = knob.position(value)
        step = 1.0 / ((levels(knob) or 9) - 1 or 1)
        new = knob.at(here + sign * step)
        if new == value:
            return None
        return self._space.repaired({**config, self._name: new}, fixed=(self._name,))

    def tell(self, config: Config, loss: float | None) -> None:
        """Go on in a direction as long as it gains; a gain one way ends the other."""
        self._tpe.tell(config, loss)
        if self._best is None:
            self._best = None if loss is None else (loss, dict(config))
        elif self._directions:
            if loss is not None and loss < self._best[0]:
                self._best = (loss, dict(config))
                self._directions = self._directions[:1]
            else:
                self._directions.pop(0)


TUNERS: dict[str, Callable[[Space, int], Tuner]] = {
    "T": Tpe,
    "G": GaussianProcess,
    "E": CmaEs,
    "S": LineSearch,
    "U": Random,
}


def tuner_for(letter: str, space: Space, seed: int) -> Tuner:
    """The tuner of an arm."""
    random.seed(seed)  # nothing of ours uses it; a library may
    return TUNERS[letter](space, seed)
