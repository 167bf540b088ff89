"""A paired comparison: the mean of some differences with its 95 % interval by Student's t.

Pure arithmetic. What is compared, and what follows from it, is the caller's business.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Two-sided 95 % quantiles of Student's t for 1 ... 30 degrees of freedom.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_NORMAL = 1.959964
DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its 95 % interval; `low` and `high` are None where there is one value alone."""

    value: float
    low: float | None
    high: float | None
    n: int

    def to_data(self) -> dict[str, float | int | None]:
        """As plain data, rounded."""
        ends = [None if end is None else round(end, DIGITS) for end in (self.low, self.high)]
        return {"value": round(self.value, DIGITS), "low": ends[0], "high": ends[1], "n": self.n}


def quantile_95(degrees: int) -> float:
    """The two-sided 95 % quantile of Student's t. Raises ValueError for less than one degree."""
    if degrees < 1:
        raise ValueError("a spread needs at least two values")
    if degrees <= len(_T):
        return _T[degrees - 1]
    z = _NORMAL  # the first terms of the quantile's series in 1 / degrees
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
    return z + (z**3 + z) / (4 * degrees) + second


def interval(values: Sequence[float]) -> Interval:
    """The mean of at least one value, with its interval."""
    mean, n = statistics.fmean(values), len(values)
    if n < 2:
        return Interval(value=mean, low=None, high=None, n=n)
    half = quantile_95(n - 1) * statistics.stdev(values) / math.sqrt(n)
    return Interval(value=mean, low=mean - half, high=mean + half, n=n)
