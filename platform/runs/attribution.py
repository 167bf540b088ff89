"""What a mechanism did in production, against its predecessor: counts, gain, interval.

Pure functions over trials. Gain is the difference of the mean metric of its finished trials and
its predecessor's, in units of the baseline's noise (positive: better), with a 95 % interval by
Welch's method; "not enough data" is an answer. What follows from it, the policy says.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runs.models import Trial

MIN_TRIALS = 3
# Two-sided 95 % quantiles of Student's t for 1 ... 30 degrees of freedom.
_T = (
    12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
HOOKS = (
    "propose_calls", "ask_calls", "accept_calls", "observe_calls", "proposals_changed",
    "candidates_refused", "acceptances_changed", "raised",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What the trials of one mechanism add up to."""

    trials: int
    failed: int
    kept: int
    hooks: dict[str, int]
    first_best: float | None  # what the search held when it began
    last_best: float | None  # what it holds after its last trial

    @property
    def calls(self) -> int:
        """How often it was asked anything."""
        return sum(v for k, v in self.hooks.items() if k.endswith("_calls") and k != "ask_calls")

    @property
    def decisions_changed(self) -> int:
        """Proposals and acceptances that differ from plain Level 1."""
        return self.hooks["proposals_changed"] + self.hooks["acceptances_changed"]


@dataclass(frozen=True, kw_only=True)
class Gain:
    """A difference of means in units of `unit`, with its 95 % interval; better is positive."""

    value: float
    low: float
    high: float
    unit: float
    n: int
    n_before: int

    def __str__(self) -> str:
        return (
            f"{self.value:+.1f} sigma (95 %: {self.low:+.1f} to {self.high:+.1f}; "
            f"n = {self.n} against {self.n_before})"
        )


def count(trials: Iterable[Trial]) -> Counts:
    """Add up the trials of one mechanism, in order."""
    rows = list(trials)
    hooks = {name: sum(int((t.hooks or {}).get(name, 0)) for t in rows) for name in HOOKS}
    bests = [t.best_metric for t in rows if t.best_metric is not None]
    return Counts(
        trials=len(rows),
        failed=sum(t.status == "failed" for t in rows),
        kept=sum(t.status == "kept" for t in rows),
        hooks=hooks,
        first_best=bests[0] if bests else None,
        last_best=bests[-1] if bests else None,
    )


def gain(
    after: Sequence[Trial], before: Sequence[Trial], *, unit: float | None, minimize: bool
) -> Gain | None:
    """The gain of `after` against `before`; None where there is not enough data."""
    new, old = _metrics(after), _metrics(before)
    if len(new) < MIN_TRIALS or len(old) < MIN_TRIALS or not unit or unit <= 0:
        return None
    sign = -1.0 if minimize else 1.0
    difference = sign * (statistics.fmean(new) - statistics.fmean(old)) / unit
    a, b = (statistics.variance(x) / len(x) for x in (new, old))
    error = math.sqrt(a + b) / unit
    spread = error * _quantile(a, b, len(new), len(old))
    return Gain(
        value=difference,
        low=difference - spread,
        high=difference + spread,
        unit=unit,
        n=len(new),
        n_before=len(old),
    )


def spread_of(trials: Sequence[Trial]) -> float | None:
    """The standard deviation of the trials' metrics, if there are enough."""
    metrics = _metrics(trials)
    return statistics.stdev(metrics) if len(metrics) >= MIN_TRIALS else None


def _metrics(trials: Sequence[Trial]) -> list[float]:
    return [t.metric for t in trials if t.metric is not None]


def _quantile(a: float, b: float, n: int, m: int) -> float:
    """Student's quantile at Welch's degrees of freedom, rounded down."""
    if a + b == 0:
        return 0.0
    share = a / (a + b)
    whole = int(1 / (share**2 / (n - 1) + (1 - share) ** 2 / (m - 1)) + 1e-9)
    return _T[max(1, whole) - 1] if whole <= len(_T) else 1.96
