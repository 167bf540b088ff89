"""An elitist pool with uniform crossover: parents by tournament, children mutate a little."""

from __future__ import annotations

import copy
import operator
from functools import partial, reduce
from typing import Generic, TypeVar

from sandbox.mechanism import Candidate, KnobValue, Mechanism, Trial, View

T = TypeVar("T")


class Pool(Generic[T]):
    """The best few of what was put in, in order."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._items: list[tuple[float, int, T]] = []

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self):
        return (item for _, _, item in self._items)

    def add(self, cost: float, number: int, item: T) -> "Pool[T]":
        self._items.append((cost, number, item))
        self._items.sort(key=operator.itemgetter(0, 1))
        del self._items[self.size :]
        return self

    def tournament(self, draw, rounds: int = 2) -> T:
        picks = [draw(self._items) for _ in range(rounds)]
        return min(picks, key=lambda pick: pick[:2])[2]


class Crossover(Mechanism):
    name = "crossover"

    def propose(self, view: View, count: int) -> list[Candidate]:
        sign = 1.0 if view.minimize else -1.0
        done = [t for t in view.trace if t.metric is not None]
        pool: Pool[Trial] = reduce(
            lambda p, t: p.add(sign * (t.metric or 0.0), t.number, t), done, Pool(5)
        )
        if len(pool) < 3:
            return view.ask(count=count)
        pick = partial(pool.tournament, view.random.choice)
        children = []
        for _ in range(10 * count):
            mother, father = pick(), pick()
            config: dict[str, KnobValue] = copy.copy(dict(view.best.config))
            for name in view.free():
                parent = mother if view.random.random() < 0.5 else father
                config[name] = parent.config[name]
                if view.random.random() < 0.1:
                    knob = view.space[name]
                    config[name] = knob.at(knob.position(config[name]) + view.random.gauss(0, 0.1))
            changes = {n: v for n, v in config.items() if v != view.best.config[n]}
            if changes and not view.space.problems(config):
                children.append(Candidate(changes=changes, reason=f"child of {mother.number} and {father.number}"))
            if len(children) == count:
                break
        return children or view.ask(count=count)
