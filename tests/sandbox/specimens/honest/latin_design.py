"""A Latin hypercube over the free numeric knobs, walked through one row after the other."""

from __future__ import annotations

import random
from dataclasses import dataclass

from sandbox.mechanism import Candidate, Mechanism, View

ROWS = 16


@dataclass(frozen=True)
class Design:
    names: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]

    @classmethod
    def make(cls, names: tuple[str, ...], seed: int) -> "Design":
        rng = random.Random(seed)
        columns = []
        for _ in names:
            column = [(i + rng.random()) / ROWS for i in range(ROWS)]
            rng.shuffle(column)
            columns.append(column)
        return cls(names, tuple(zip(*columns, strict=True)))


class LatinDesign(Mechanism):
    name = "latin_design"

    def propose(self, view: View, count: int) -> list[Candidate]:
        names = tuple(n for n in view.free() if view.space[n].kind != "choice")
        if not names:
            return view.ask(count=count)
        design = Design.make(names[:4], seed=7)
        out: list[Candidate] = []
        index = len(view.trace) - 1
        while len(out) < count and index < len(view.trace) + 4 * ROWS:
            row = design.rows[index % ROWS]
            index += 1
            changes = {n: view.space[n].at(p) for n, p in zip(design.names, row, strict=True)}
            if not view.space.problems(view.config_of(changes)):
                out.append(Candidate(changes=changes, reason=f"row {index % ROWS} of {ROWS}"))
        return out or view.ask(count=count)
