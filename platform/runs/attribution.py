"""What a mechanism did in production, against its predecessor: counts, gain, interval.

Pure functions over trials. Gain is the difference of the mean metric of its finished trials and
its predecessor's, in units of the baseline's noise (positive: better), with a 95 % interval by
Welch's method (degrees of freedom rounded down, which makes it wider); "not enough data" is an
answer. Before and after, no experiment: what follows from it, the policy says.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runs.models import Trial
from sandbox.paired import quantile_95

MIN_TRIALS = 3
MAX_SIGMAS = 1e9  # beyond, the noise is a rounding error, or a metric is: no gain is told in it
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
    """A difference of means in units of the noise, with its 95 % interval; better is positive.
    `unit`: the noise of the first run, in units of the metric; `runs`: how many were compared."""

    value: float
    low: float
    high: float
    unit: float
    n: int
    n_before: int
    runs: int = 1

    def __str__(self) -> str:
        where = f" in {self.runs} runs" if self.runs > 1 else ""
        return (
            f"{self.value:+.1f} sigma (95 %: {self.low:+.1f} to {self.high:+.1f}; "
            f"n = {self.n} against {self.n_before}{where})"
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
    """The gain of `after` against `before`, all of one run; None where there is not enough data."""
    found = _difference(after, before, unit=unit, minimize=minimize)
    return None if found is None else _together([found])


def compare(
    after: Sequence[Trial], before: Sequence[Trial], *, in_spread: bool = False
) -> Gain | None:
    """The gain over all runs that have trials of both, each compared within itself (its own host,
    task and noise) and weighted by its trials; None where no run has enough of both.

    In units of each run's noise; `in_spread`: of its predecessor's own spread, where that is more.
    """
    parts = []
    for run in {t.run_id: t.run for t in after}.values():
        old = [t for t in before if t.run_id == run.pk]
        unit = run.sigma
        if in_spread:
            unit = max(run.sigma or 0.0, spread_of(old) or 0.0)
        new = [t for t in after if t.run_id == run.pk]
        part = _difference(new, old, unit=unit, minimize=run.minimize)
        if part is not None:
            parts.append(part)
    return _together(parts) if parts else None


@dataclass(frozen=True, kw_only=True)
class _Difference:
    """Of the means of two samples within one run: in its unit, with its error and that error's
    degrees of freedom (Welch)."""

    value: float
    error: float
    degrees: float
    unit: float
    n: int
    n_before: int

    @property
    def weight(self) -> float:
        return self.n * self.n_before / (self.n + self.n_before)


def _difference(
    after: Sequence[Trial], before: Sequence[Trial], *, unit: float | None, minimize: bool
) -> _Difference | None:
    new, old = _metrics(after), _metrics(before)
    if len(new) < MIN_TRIALS or len(old) < MIN_TRIALS or not unit or unit <= 0:
        return None
    try:
        spreads = [statistics.stdev(x) / unit for x in (new, old)]
        value = (statistics.fmean(new) - statistics.fmean(old)) / unit
    except OverflowError:
        return None
    if not max(abs(value), *spreads) <= MAX_SIGMAS:
        return None
    if max(spreads) < 1 / MAX_SIGMAS:  # a metric with few values: the noise is there still
        spreads = [1.0, 1.0]
    a, b = (s**2 / len(x) for s, x in zip(spreads, (new, old), strict=True))
    return _Difference(
        value=-value if minimize else value,
        error=math.sqrt(a + b),
        degrees=_welch(a, b, len(new), len(old)),
        unit=unit,
        n=len(new),
        n_before=len(old),
    )


def _together(parts: Sequence[_Difference]) -> Gain:
    """Several runs' differences as one, with Welch's and Satterthwaite's interval."""
    whole = sum(p.weight for p in parts)
    value = sum(p.weight * p.value for p in parts) / whole
    errors = [(p.weight * p.error / whole) ** 2 for p in parts]
    all_errors = sum(errors)
    shares = [(e / all_errors) ** 2 / p.degrees for e, p in zip(errors, parts, strict=True)]
    spread = math.sqrt(all_errors) * quantile_95(max(1, int(1 / sum(shares) + 1e-9)))
    return Gain(
        value=value,
        low=value - spread,
        high=value + spread,
        unit=parts[0].unit,
        n=sum(p.n for p in parts),
        n_before=sum(p.n_before for p in parts),
        runs=len(parts),
    )


def spread_of(trials: Sequence[Trial]) -> float | None:
    """The standard deviation of the trials' metrics, if there are enough that have one."""
    metrics = _metrics(trials)
    try:
        return statistics.stdev(metrics) if len(metrics) >= MIN_TRIALS else None
    except OverflowError:
        return None


def _metrics(trials: Sequence[Trial]) -> list[float]:
    return [t.metric for t in trials if t.metric is not None]


def _welch(a: float, b: float, n: int, m: int) -> float:
    """Welch's degrees of freedom of two means with squared errors `a` and `b`, not both 0."""
    share = a / (a + b)
    return 1 / (share**2 / (n - 1) + (1 - share) ** 2 / (m - 1))
