"""How much chance there is in a metric, and what a gain is worth beside it. Pure functions.

The noise is the standard deviation of one training's metric under another seed, measured by
repeating the default configuration on one host; baselines of other runs of the same task on the
same host are pooled with it. Which trials are kept is not decided here (`runner.confirming`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Two-sided 95 % quantiles of Student's t for 1 ... 30 degrees of freedom.
_STUDENT = (
    12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_NORMAL = 1.96


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The measurements of one run's default configuration."""

    run_id: str
    metrics: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Baselines of one task on one host, taken together.

    `sigma` in units of the metric (None: not one of them was repeated), with its `degrees` of
    freedom; `mean` of all `n` measurements of `runs` baselines.
    """

    sigma: float | None
    degrees: int
    mean: float
    n: int
    runs: int


@dataclass(frozen=True, kw_only=True)
class Gain:
    """How much better a mean of `n` measurements is than a baseline of `n_baseline`: in units of
    the metric, and in sigmas with a 95 % interval where the noise is known. Better is positive."""

    value: float
    sigmas: float | None
    low: float | None
    high: float | None
    n: int
    n_baseline: int

    def __str__(self) -> str:
        if self.sigmas is None or self.low is None or self.high is None:
            return f"{self.value:+.4g} (n = {self.n} against {self.n_baseline}; noise not known)"
        return (
            f"{self.value:+.4g}, {self.sigmas:+.1f} sigma (95 %: {self.low:+.1f} to "
            f"{self.high:+.1f}; n = {self.n} against {self.n_baseline})"
        )


def student(degrees: int) -> float:
    """The two-sided 95 % quantile of Student's t. Raises ValueError for less than one degree."""
    if degrees < 1:
        raise ValueError("a spread needs at least two values")
    return _STUDENT[degrees - 1] if degrees <= len(_STUDENT) else _NORMAL


def pooled(baselines: Iterable[Baseline]) -> Noise:
    """All baselines together, each run once. The spread is that *within* runs, so that a host
    that got slower between two of them does not look like noise. Raises ValueError for none."""
    known = {b.run_id: b.metrics for b in baselines if b.metrics}
    metrics = [m for values in known.values() for m in values]
    if not metrics:
        raise ValueError("no baseline was measured")
    repeated = [values for values in known.values() if len(values) > 1]
    degrees = sum(len(values) - 1 for values in repeated)
    squares = sum(statistics.variance(values) * (len(values) - 1) for values in repeated)
    return Noise(
        sigma=math.sqrt(squares / degrees) if degrees else None,
        degrees=degrees,
        mean=statistics.fmean(metrics),
        n=len(metrics),
        runs=len(known),
    )


def gain(metrics: Sequence[float], noise: Noise, *, minimize: bool) -> Gain:
    """The gain of repeated measurements of one configuration over the pooled baseline."""
    difference = noise.mean - statistics.fmean(metrics)
    value = difference if minimize else -difference
    sigmas = low = high = None
    if noise.sigma:
        sigmas = value / noise.sigma
        spread = student(noise.degrees) * math.sqrt(1 / len(metrics) + 1 / noise.n)
        low, high = sigmas - spread, sigmas + spread
    return Gain(value=value, sigmas=sigmas, low=low, high=high, n=len(metrics), n_baseline=noise.n)
