"""What a page says about each mechanism of a run: n, kept, best, and its gain in words.

The numbers are `runs.attribution`'s; this only lines them up.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from runs import attribution
from runs.models import Run, Trial


@dataclass(frozen=True, kw_only=True)
class Row:
    """One stretch of trials that one mechanism chose, against the stretch before it."""

    name: str
    digest: str
    first: int
    last: int
    n: int
    kept: int
    best: float | None
    tone: str
    words: str


def attribution_rows(run: Run) -> list[Row]:
    """The stretches in order, without the baseline."""
    trials = run.trials.exclude(digest="").order_by("number")
    stretches = [list(group) for _, group in groupby(trials, key=lambda t: t.digest)]
    rows = []
    for index, stretch in enumerate(stretches):
        counts = attribution.count(stretch)
        metrics = [t.metric for t in stretch if t.metric is not None]
        best = (min if run.minimize else max)(metrics) if metrics else None
        words, tone = _gain(run, stretch, stretches[index - 1] if index else [])
        rows.append(
            Row(
                name=stretch[0].mechanism,
                digest=stretch[0].digest,
                first=stretch[0].number,
                last=stretch[-1].number,
                n=counts.trials,
                kept=counts.kept,
                best=best,
                tone=tone,
                words=words,
            )
        )
    return rows


def _gain(run: Run, after: list[Trial], before: list[Trial]) -> tuple[str, str]:
    if not before:
        return "nothing before it to compare with", ""
    unit = run.sigma or attribution.spread_of(before)
    gain = attribution.gain(after, before, unit=unit, minimize=run.minimize)
    if gain is None:
        return f"not enough data (at least {attribution.MIN_TRIALS} measured trials each)", ""
    tone = "good" if gain.low > 0 else "bad" if gain.high < 0 else ""
    return str(gain), tone
