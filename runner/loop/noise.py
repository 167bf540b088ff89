"""How much chance there is in a metric, and what a gain is worth beside it. Pure functions.

The noise is the standard deviation of one training's metric under another seed, measured by
repeating the default configuration on one host; baselines of other runs of the same task on the
same host are pooled with it. Which trials are kept is not decided here (`runner.loop.acceptance`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sandbox.paired import quantile_95


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The measurements of one run's default configuration."""

    run_id: str
    metrics: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Baselines of one task on one host, taken together.

    `sigma` in units of the metric (None: not one of them was repeated), with its `degrees` of
    freedom; `mean` of all `n` measurements of `runs` baselines. `left_out`: baselines of that host
    which differ from the own one by more than the noise, and are not part of the mean.
    """

    sigma: float | None
    degrees: int
    mean: float
    n: int
    runs: int
    left_out: int = 0


@dataclass(frozen=True, kw_only=True)
class Gain:
    """How much better a mean of `n` measurements is than a baseline of `n_baseline`: in units of
    the metric, and in sigmas with a 95 % interval where the noise is known and not 0. Better is
    positive."""

    value: float
    sigmas: float | None
    low: float | None
    high: float | None
    n: int
    n_baseline: int
    noise: float | None

    def __str__(self) -> str:
        if self.sigmas is None or self.low is None or self.high is None:
            words = "noise not known" if self.noise is None else "noise measured as 0"
            return f"{self.value:+.4g} (n = {self.n} against {self.n_baseline}; {words})"
        return (
            f"{self.value:+.4g}, {self.sigmas:+.1f} sigma (95 %: {self.low:+.1f} to "
            f"{self.high:+.1f}; n = {self.n} against {self.n_baseline})"
        )


def mean_of(values: Sequence[float]) -> float:
    """The mean; of equal values exactly that value. (`fmean` may miss it by a rounding, and then a
    trial that changed nothing would be better.)"""
    return values[0] if min(values) == max(values) else statistics.fmean(values)


def form(metric: float) -> str:
    """How numbers about the size of `metric` are told, as a format: four decimals, or four digits
    where those would be nothing but zeros, or too many."""
    return ".4f" if metric == 0 or 0.01 <= abs(metric) < 1e7 else ".4g"


def pooled(baselines: Iterable[Baseline], *, own: str | None = None) -> Noise:
    """All baselines together, each run once. The spread is that *within* runs, so that a host
    that got slower between two of them does not look like noise. Raises ValueError for none.

    `own`: the run that is to be judged. A baseline that differs from its own by more than chance
    (95 %) was measured in another state of the host: to be better than that one would be no gain.
    It counts for the spread alone.
    """
    known = {b.run_id: b.metrics for b in baselines if b.metrics}
    if not known:
        raise ValueError("no baseline was measured")
    repeated = [values for values in known.values() if len(values) > 1]
    degrees = sum(len(values) - 1 for values in repeated)
    squares = sum(statistics.variance(values) * (len(values) - 1) for values in repeated)
    sigma = math.sqrt(squares / degrees) if degrees else None
    alike = list(known.values())
    if sigma is not None and own is not None:
        alike = [v for v in alike if _alike(v, known[own], sigma, degrees)]
    metrics = [m for values in alike for m in values]
    return Noise(
        sigma=sigma,
        degrees=degrees,
        mean=mean_of(metrics),
        n=len(metrics),
        runs=len(alike),
        left_out=len(known) - len(alike),
    )


def _alike(one: Sequence[float], other: Sequence[float], sigma: float, degrees: int) -> bool:
    """Whether two baselines differ by no more than chance."""
    chance = quantile_95(degrees) * sigma * math.sqrt(1 / len(one) + 1 / len(other))
    return abs(mean_of(one) - mean_of(other)) <= chance


def gain(metrics: Sequence[float], noise: Noise, *, minimize: bool) -> Gain:
    """The gain of repeated measurements of one configuration over the pooled baseline."""
    difference = noise.mean - mean_of(metrics)
    value = difference if minimize else -difference
    sigmas = low = high = None
    if noise.sigma:
        sigmas = value / noise.sigma
        spread = quantile_95(noise.degrees) * math.sqrt(1 / len(metrics) + 1 / noise.n)
        low, high = sigmas - spread, sigmas + spread
    return Gain(
        value=value,
        sigmas=sigmas,
        low=low,
        high=high,
        n=len(metrics),
        n_baseline=noise.n,
        noise=noise.sigma,
    )
