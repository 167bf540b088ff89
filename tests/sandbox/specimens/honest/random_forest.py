"""A forest of small regression trees by hand; the candidate with the lowest optimistic mean wins."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Union

from sandbox.mechanism import Candidate, Mechanism, View

Point = tuple[float, ...]
Row = tuple[Point, float]


@dataclass(frozen=True)
class Leaf:
    value: float


@dataclass(frozen=True)
class Split:
    axis: int
    at: float
    low: "Node"
    high: "Node"


Node = Union[Leaf, Split]


def grow(rows: list[Row], rng: random.Random, depth: int = 4) -> Node:
    values = [y for _, y in rows]
    if depth == 0 or len(rows) < 4:
        return Leaf(fmean(values))
    axis = rng.randrange(len(rows[0][0]))
    at = rng.choice(rows)[0][axis]
    low = [r for r in rows if r[0][axis] <= at]
    high = [r for r in rows if r[0][axis] > at]
    if not low or not high:
        return Leaf(fmean(values))
    return Split(axis, at, grow(low, rng, depth - 1), grow(high, rng, depth - 1))


def predict(node: Node, point: Point) -> float:
    match node:
        case Leaf(value=value):
            return value
        case Split(axis=axis, at=at, low=low, high=high):
            return predict(low if point[axis] <= at else high, point)
    raise TypeError(f"no node: {node!r}")


class RandomForest(Mechanism):
    name = "random_forest"

    def propose(self, view: View, count: int) -> list[Candidate]:
        names = view.free()
        sign = 1.0 if view.minimize else -1.0
        rows = [
            (tuple(view.space[n].position(t.config[n]) for n in names), sign * t.metric)
            for t in view.trace
            if t.metric is not None
        ]
        if len(rows) < 6:
            return view.ask(count=count)
        rng = view.random
        forest = [grow([rng.choice(rows) for _ in rows], rng) for _ in range(20)]
        base = tuple(view.space[n].position(view.best.config[n]) for n in names)
        scored = []
        for number in range(120):
            point = tuple(min(1, max(0, b + rng.gauss(0, 0.2))) if rng.random() < 0.3 else b for b in base)
            changes = {
                n: v for n, p in zip(names, point) if (v := view.space[n].at(p)) != view.best.config[n]
            }
            if not changes or view.space.problems(view.config_of(changes)):
                continue
            votes = [predict(tree, point) for tree in forest]
            scored.append((fmean(votes) - 0.5 * pstdev(votes), number, changes))
        scored.sort(key=lambda s: (s[0], s[1]))
        best = [Candidate(changes=c, reason=f"forest expects {math.copysign(s, sign):.4f}") for s, _, c in scored]
        return best[:count] or view.ask(count=count)
