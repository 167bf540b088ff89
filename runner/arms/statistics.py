"""Means, intervals and tests for repeats. Pure functions on numbers; what is compared with what is
`score`'s business.

Intervals: Student's t. Tests: Wilcoxon's signed ranks on paired repeats, two-sided, corrected for
the number of comparisons in the table by Holm's method.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

TEST = "Wilcoxon signed-rank, two-sided, paired by repeat; p corrected by Holm"
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A sample: `low` and `high` bound the 95 % interval of the mean; None where n is 1."""

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


def summary(values: Sequence[float]) -> Summary:
    """Mean, standard deviation and interval. Raises ValueError for nothing."""
    if not values:
        raise ValueError("no values")
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Summary(n=1, mean=mean, sd=None, low=None, high=None)
    sd = statistics.stdev(values)
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * sd / math.sqrt(len(values))
    return Summary(n=len(values), mean=mean, sd=sd, low=mean - half, high=mean + half)


@dataclass(frozen=True, kw_only=True)
class Paired:
    """One arm against another, repeat by repeat: differences (this one minus the other). `p` is
    None where there are too few repeats; `identical`: not one repeat differs."""

    difference: Summary
    p: float | None
    better: int
    worse: int
    identical: bool


def paired(one: Sequence[float], other: Sequence[float]) -> Paired:
    """Compare repeats; lower is better. `p` is not corrected yet. Raises ValueError."""
    differences = [a - b for a, b in zip(one, other, strict=True)]
    moved = [d for d in differences if d != 0]
    p = None
    if not moved and differences:
        p = 1.0
    elif len(differences) >= 5:
        p = float(stats.wilcoxon(differences, zero_method="pratt").pvalue)
    return Paired(
        difference=summary(differences),
        p=p,
        better=sum(d < 0 for d in differences),
        worse=sum(d > 0 for d in differences),
        identical=not moved,
    )


def holm(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """The same p-values, corrected for how many there are."""
    known = sorted((p, name) for name, p in values.items() if p is not None)
    corrected: dict[str, float | None] = dict.fromkeys(values)
    highest = 0.0
    for place, (p, name) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - place)))
        corrected[name] = highest
    return corrected
