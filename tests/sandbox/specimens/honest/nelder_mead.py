"""A simplex of the best trials; the worst corner is reflected through the middle of the others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from sandbox.mechanism import Candidate, KnobValue, Mechanism, Trial, View

ALPHA: Final = 1.0
GAMMA: Final = 2.0
RHO: Final = 0.5


class Corner(NamedTuple):
    position: tuple[float, ...]
    cost: float


def centroid(corners: Iterable[Corner]) -> tuple[float, ...]:
    columns = zip(*(c.position for c in corners), strict=True)
    return tuple(math.fsum(column) / len(column) for column in columns)


def along(middle: Sequence[float], worst: Sequence[float], factor: float) -> tuple[float, ...]:
    return tuple(m + factor * (m - w) for m, w in zip(middle, worst, strict=True))


class NelderMead(Mechanism):
    """Reflection, expansion and contraction are proposed in this order."""

    name = "nelder_mead"

    def _numeric(self, view: View) -> list[str]:
        return [n for n in view.free() if view.space[n].kind in {"float", "int"}]

    def _corners(self, view: View, names: Sequence[str]) -> list[Corner]:
        sign = 1 if view.minimize else -1

        def corner(trial: Trial) -> Corner:
            where = tuple(view.space[n].position(trial.config[n]) for n in names)
            assert trial.metric is not None
            return Corner(where, sign * trial.metric)

        unique = {c.position: c for t in view.trace if t.metric is not None for c in [corner(t)]}
        return sorted(unique.values(), key=lambda c: c.cost)[: len(names) + 1]

    def propose(self, view: View, count: int) -> list[Candidate]:
        names = self._numeric(view)
        corners = self._corners(view, names)
        if len(corners) < 3:
            return view.ask("Vary one knob at a time, a little.", count)
        *good, worst = corners
        middle = centroid(good)
        candidates: list[Candidate] = []
        for word, factor in (("reflect", ALPHA), ("expand", GAMMA), ("contract", -RHO)):
            target = along(middle, worst.position, factor)
            changes: dict[str, KnobValue] = {
                n: value
                for n, p in zip(names, target, strict=True)
                if (value := view.space[n].at(p)) != view.best.config[n]
            }
            if changes and not view.space.problems(view.config_of(changes)):
                candidates.append(Candidate(changes=changes, reason=f"{word} the worst corner"))
        return candidates[:count] or view.ask(count=count)
