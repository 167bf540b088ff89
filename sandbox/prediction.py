"""What a mechanism would gain: searches on analytic surfaces, next to the null mechanism.

Both search the same surfaces with common random numbers: the same start, the same noise in the
same trial, the same prior's chance. The difference of a pair is one number; over the pairs it has
a mean and an interval. Judged is the true value of what each holds, which no search gets to see.

The surfaces are drawn from the digest of the mechanism's bytes: the same bytes give the same
numbers, and nobody can write code for surfaces that it has seen. It is a prediction on *these*
surfaces, with a scripted prior, and no promise about a training; nothing is refused for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sandbox.judging import Host
from sandbox.paired import DIGITS, interval
from sandbox.scripted_prior import ScriptedPrior
from sandbox.surface import SOURCE, TRAINER, Search, Surface
from sandbox.walk import NULL, Tally, Walk, totals_of, wanted

SEARCHES = 8
TRIALS = 20
ENOUGH = 3  # fewer pairs have no interval worth the name
LIVE_SECONDS = 20.0  # of the clock: a slow mechanism gets fewer searches, and the report says so
NOTE = (
    "A prediction on analytic surfaces with a scripted prior, which is no language model. It is "
    "no promise about a training: what a mechanism gains there is measured once it is live."
)


class Says(StrEnum):
    """What the interval says."""

    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no difference can be seen"
    NOT_ENOUGH = "not enough searches"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One surface searched twice; the curves say how much better than the start, after each trial,
    is what is held."""

    draw: str
    null: tuple[float, ...]
    mechanism: tuple[float, ...]
    failed_null: int
    failed: int

    @property
    def difference(self) -> tuple[float, ...]:
        """What the mechanism is ahead by, after each trial."""
        return tuple(m - n for m, n in zip(self.mechanism, self.null, strict=True))


@dataclass(kw_only=True)
class Prediction:
    """The searches so far. `tallies` count them as the replay of traces is counted."""

    pairs: list[Pair]
    tallies: list[Tally]

    def to_data(self) -> dict[str, Any]:
        """As the report shows it; positive is better, whichever way the metric goes."""
        data: dict[str, Any] = {
            "note": NOTE,
            "source": SOURCE,
            "surface": TRAINER.name,
            "metric": "the surface's metric, lower is better",
            "sigma": TRAINER.sigma,
            "trials": TRIALS,
            "planned": SEARCHES,
            "n": len(self.pairs),
            "totals": totals_of(self.tallies),
            "says": Says.NOT_ENOUGH,
            "gain": None,
            "gain_sigma": None,
            "ahead": sum(pair.difference[-1] > 0 for pair in self.pairs),
            "behind": sum(pair.difference[-1] < 0 for pair in self.pairs),
            "curves": {},
            "searches": [_pair_data(pair) for pair in self.pairs],
        }
        if not self.pairs:
            return data
        gains = [pair.difference[-1] for pair in self.pairs]
        data["gain"] = interval(gains).to_data()
        data["gain_sigma"] = interval([g / TRAINER.sigma for g in gains]).to_data()
        data["curves"] = {
            name: _curve([getattr(pair, name) for pair in self.pairs])
            for name in ("null", "mechanism", "difference")
        }
        data["says"] = _says(data["gain"])
        return data


def predict(
    host: Host,
    *,
    digest: str,
    reload: Callable[[], None],
    progress: Callable[[], None],
    into: Prediction,
    absent: frozenset[str] = frozenset(),
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Search, pair after pair, and put what comes of it `into` the prediction.

    Raises MechanismFailure in the middle of a pair; the pairs before it are kept.
    """
    began = clock()
    for number in range(1, SEARCHES + 1):
        if number > 1 and clock() - began > LIVE_SECONDS:
            return
        draw = f"{digest[:16]}/{number}"
        surface = _drawn(draw)
        reload()
        tally = Tally(name=f"search {number} on {TRAINER.name}", source=SOURCE)
        into.tallies.append(tally)
        own = Search(surface=surface, noise=surface.sigma)
        walk = Walk(host, tally, progress, rows=number == 1, chance=f"live/{draw}", absent=absent)
        walk.search(own, TRIALS)
        null = _null_search(surface, f"live/{draw}")
        into.pairs.append(
            Pair(
                draw=draw,
                null=_held(null),
                mechanism=_held(own),
                failed_null=_failed(null),
                failed=_failed(own),
            )
        )


def _drawn(draw: str) -> Surface:
    return Surface(
        name=TRAINER.name,
        space=TRAINER.space,
        minimize=TRAINER.minimize,
        frozen=TRAINER.frozen,
        draw=draw,
    )


def _null_search(surface: Surface, chance: str) -> Search:
    """The same search by the null mechanism, in this process: it is our own code."""
    search, number = Search(surface=surface, noise=surface.sigma), 0
    while len(search.trials) <= TRIALS:
        number += 1
        answers = ScriptedPrior(search.view(), seed=chance).null_answer(wanted(number))
        for candidate in answers[: TRIALS + 1 - len(search.trials)]:
            trial = search.attempt(candidate)
            keep = trial.metric is not None and NULL.accept(trial, search.view())
            search.finish(trial, keep=keep)
    return search


def _held(search: Search) -> tuple[float, ...]:
    """How much better than the start is what is held, after each trial; the start first."""
    sign = 1 if search.surface.minimize else -1
    start = search.surface.truth(search.trials[0].config)
    held, curve = 0.0, []
    for trial in search.trials:
        if trial.status == "kept":
            held = sign * (start - search.surface.truth(trial.config))
        curve.append(held)
    return tuple(curve)


def _failed(search: Search) -> int:
    return sum(trial.status == "failed" for trial in search.trials)


def _curve(curves: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    return [interval(values).to_data() for values in zip(*curves, strict=True)]


def _pair_data(pair: Pair) -> dict[str, Any]:
    return {
        "draw": pair.draw,
        "null": round(pair.null[-1], DIGITS),
        "mechanism": round(pair.mechanism[-1], DIGITS),
        "difference": round(pair.difference[-1], DIGITS),
        "failed_null": pair.failed_null,
        "failed": pair.failed,
    }


def _says(gain: dict[str, Any]) -> Says:
    if gain["n"] < ENOUGH:
        return Says.NOT_ENOUGH
    if gain["low"] > 0:
        return Says.BETTER
    return Says.WORSE if gain["high"] < 0 else Says.NO_DIFFERENCE


def words(data: dict[str, Any]) -> str:
    """The prediction in one line."""
    if data["gain_sigma"] is None or data["says"] == Says.NOT_ENOUGH:
        return f"no predicted gain: {data['n']} of {data['planned']} searches were done"
    gain = data["gain_sigma"]
    ends = f"95 %: {gain['low']:+.1f} to {gain['high']:+.1f}"
    return (
        f"predicted gain {gain['value']:+.1f} sigma ({ends}; n = {gain['n']} paired searches of "
        f"{data['trials']} trials on analytic surfaces): {data['says']}"
    )
