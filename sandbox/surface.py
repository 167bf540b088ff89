"""Analytic search spaces: a metric for every configuration, at once and always the same.

A stand-in for trainings, so that judges can let a mechanism search for dozens of steps in a
second. Nothing here was measured, and whatever comes from it is labelled `analytic`.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import NormalDist

from sandbox.mechanism import (
    Ask,
    Candidate,
    Config,
    Constraint,
    Knob,
    Space,
    Trial,
    View,
)

SOURCE = "analytic"
SURFACE_SIGMA = 0.004  # standard deviation of one measurement
_NORMAL = NormalDist()


def _chance(*parts: object) -> float:
    """A number from 0 to 1 that depends on `parts` alone."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


@functools.lru_cache(maxsize=1024)
def _bowl(surface: str, draw: str, knob: str) -> tuple[float, float]:
    """Where a knob is best on its scale, and how much it weighs."""
    best = 0.15 + 0.7 * _chance(surface, draw, "best", knob)
    return best, 0.1 + 0.9 * _chance(surface, draw, "weight", knob)


@dataclass(frozen=True, kw_only=True)
class Surface:
    """A bowl with ridges, noise by trial, and corners where a training would break.

    `draw` names another surface over the same space: other optimum, weights and noise.
    """

    name: str
    space: Space
    minimize: bool = True
    frozen: frozenset[str] = frozenset()
    draw: str = ""

    def measure(self, config: Config, number: int) -> tuple[float | None, str]:
        """Metric and "", or None and the class of failure. `number` is the trial's: it alone
        chooses the noise, so that two searches meet the same noise in the same trial."""
        if self.space.problems(config):
            return None, "constraint"
        for name, value in config.items():
            if name == "DEVICE_BATCH_SIZE" and float(value) >= 64:
                return None, "oom"
            if name == "MATRIX_LR" and self.space[name].position(value) > 0.92:
                return None, "nan"
        chance = min(max(self._chance("noise", number), 1e-9), 1 - 1e-9)
        return round(self.truth(config) + self.sigma * _NORMAL.inv_cdf(chance), 6), ""

    @property
    def sigma(self) -> float:
        """Standard deviation of one measurement, in the unit of the metric."""
        return SURFACE_SIGMA if self.minimize else 0.2 * SURFACE_SIGMA

    def truth(self, config: Config) -> float:
        """The metric of a valid configuration without noise: what no search gets to see."""
        cost, away = 0.0, []
        for name, knob in self.space.items():
            best, weight = _bowl(self.name, self.draw, name)
            away.append(knob.position(config[name]) - best)
            cost += weight * away[-1] ** 2
        cost += 0.3 * sum(a * b for a, b in pairwise(away)) / len(away)
        return 3.2 + cost if self.minimize else 0.9 - 0.2 * cost

    def _chance(self, *parts: object) -> float:
        return _chance(self.name, self.draw, *parts)


@dataclass(kw_only=True)
class Search:
    """One search on a surface as a run would do it: try, keep or discard, remember.

    `noise` is what its views say of it: None, as if nobody had measured it.
    """

    surface: Surface
    trials: list[Trial] = field(default_factory=list)
    noise: float | None = None

    def __post_init__(self) -> None:
        config = self.surface.space.defaults()
        metric, failure = self.surface.measure(config, 0)
        if metric is None:
            raise ValueError(f"the baseline of {self.surface.name} fails: {failure}")
        self.trials.append(
            Trial(number=0, config=config, changes={}, metric=metric, status="kept", seconds=5.0)
        )

    def view(self, prior: Ask | None = None, frozen: frozenset[str] | None = None) -> View:
        """The view now; `prior` answers its asks."""
        return view_of(
            self.surface.space,
            self.trials,
            frozen=self.surface.frozen if frozen is None else frozen,
            minimize=self.surface.minimize,
            prior=prior,
            noise=self.noise,
        )

    def attempt(self, candidate: Candidate, *, digest: str = "", failure: str = "") -> Trial:
        """The trial of a candidate, not yet part of the trace, with a status to be decided."""
        view = self.view()
        config = view.config_of(candidate.changes)
        frozen = any(config.get(n) != view.best.config[n] for n in self.surface.frozen)
        failure = failure or ("constraint" if frozen else "")
        metric, seen = (
            (None, failure) if failure else self.surface.measure(config, len(self.trials))
        )
        return Trial(
            number=len(self.trials),
            config=config,
            changes=dict(candidate.changes),
            metric=metric,
            status="failed" if metric is None else "discarded",
            failure=seen,
            seconds=5.0,
            mechanism=digest,
        )

    def finish(self, trial: Trial, *, keep: bool) -> Trial:
        """Put a trial into the trace; the trial as it is remembered."""
        kept = keep and trial.metric is not None
        done = trial if not kept else with_status(trial, keep=True)
        self.trials.append(done)
        return done


def with_status(trial: Trial, *, keep: bool) -> Trial:
    """The trial as kept or discarded; a failed one stays failed."""
    if trial.metric is None:
        return trial
    return Trial(
        number=trial.number,
        config=trial.config,
        changes=trial.changes,
        metric=trial.metric,
        status="kept" if keep else "discarded",
        failure=trial.failure,
        seconds=trial.seconds,
        mechanism=trial.mechanism,
        measurements=trial.measurements,
    )


def view_of(
    space: Space,
    trials: Sequence[Trial],
    *,
    frozen: frozenset[str] = frozenset(),
    minimize: bool = True,
    prior: Ask | None = None,
    noise: float | None = None,
) -> View:
    """The view after `trials`; its best trial is the last kept one."""
    best = next(t for t in reversed(trials) if t.status == "kept")
    view = View(
        trace=tuple(trials),
        best=best,
        space=space,
        frozen=frozen,
        minimize=minimize,
        noise=noise,
    )
    return view if prior is None else replace(view, prior=prior)


def _rate(default: float, low: float, high: float) -> Knob:
    return Knob(kind="float", default=default, low=low, high=high, log=True)


def _share(default: float, high: float) -> Knob:
    return Knob(kind="float", default=default, low=0.0, high=high)


def _power(default: int, low: int, high: int) -> Knob:
    return Knob(kind="power_of_two", default=default, low=low, high=high, log=True)


TRAINER = Surface(
    name="trainer",
    space=Space(
        {
            "DEPTH": Knob(kind="int", default=4, low=2, high=8),
            "ASPECT_RATIO": Knob(kind="int", default=32, low=16, high=64),
            "HEAD_DIM": _power(32, 8, 64),
            "WINDOW_PATTERN": Knob(kind="choice", default="L", choices=("L", "SL", "SSSL")),
            "TOTAL_BATCH_SIZE": _power(2**15, 2**13, 2**17),
            "DEVICE_BATCH_SIZE": _power(16, 1, 64),
            "EMBEDDING_LR": _rate(0.2, 0.005, 2.0),
            "MATRIX_LR": _rate(0.02, 0.001, 0.2),
            "SCALAR_LR": _rate(0.2, 0.005, 2.0),
            "WEIGHT_DECAY": _share(0.2, 1.0),
            "WARMUP_RATIO": _share(0.0, 0.5),
            "WARMDOWN_RATIO": _share(0.5, 1.0),
        },
        (Constraint(name="TOTAL_BATCH_SIZE", of="DEVICE_BATCH_SIZE", factor=128),),
    ),
    frozen=frozenset({"DEPTH", "ASPECT_RATIO"}),
)
RATES = Surface(
    name="rates",
    space=Space(
        {
            "EMBEDDING_LR": _rate(0.5, 0.005, 2.0),
            "MATRIX_LR": _rate(0.05, 0.001, 0.2),
            "SCALAR_LR": _rate(0.2, 0.005, 2.0),
            "WEIGHT_DECAY": _share(0.5, 1.0),
            "WARMUP_RATIO": _share(0.3, 0.5),
            "FINAL_LR_FRAC": _share(0.0, 1.0),
        }
    ),
)
SCORE = Surface(
    name="score",
    minimize=False,
    space=Space(
        {
            "DEPTH": Knob(kind="int", default=3, low=1, high=12),
            "MATRIX_LR": _rate(0.01, 0.001, 0.2),
            "WEIGHT_DECAY": _share(0.1, 1.0),
            "TOTAL_BATCH_SIZE": _power(2**14, 2**10, 2**18),
            "WINDOW_PATTERN": Knob(kind="choice", default="L", choices=("L", "SL", "SSSL", "S")),
        }
    ),
)
SURFACES = (TRAINER, RATES, SCORE)
