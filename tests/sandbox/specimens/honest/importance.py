"""Which knob matters? A one-way analysis of variance over the trace picks what is varied next."""

from __future__ import annotations

import statistics as st
from collections import defaultdict
from typing import Optional

from sandbox.mechanism import Candidate, Mechanism, View

BINS = 3
MINIMUM = 6


def eta_squared(groups: list[list[float]]) -> Optional[float]:
    """The share of the variance that lies between the groups; None where there is too little."""
    values = [v for g in groups for v in g]
    if len(values) < MINIMUM or len([g for g in groups if g]) < 2:
        return None
    mean = st.fmean(values)
    total = sum((v - mean) ** 2 for v in values)
    if total == 0:
        return None
    between = sum(len(g) * (st.fmean(g) - mean) ** 2 for g in groups if g)
    return between / total


class Importance(Mechanism):
    name = "importance"

    def _ranking(self, view: View) -> list[tuple[float, str]]:
        ranking = []
        for name in view.free():
            groups = defaultdict(list)
            for trial in view.trace:
                if trial.metric is not None:
                    position = view.space[name].position(trial.config[name])
                    groups[min(BINS - 1, int(position * BINS))].append(trial.metric)
            share = eta_squared(list(groups.values()))
            ranking.append((share if share is not None else 0.5, name))
        return sorted(ranking, reverse=True)

    def propose(self, view: View, count: int) -> list[Candidate]:
        top = [name for _, name in self._ranking(view)][: max(2, count)]
        found: list[Candidate] = []
        for name in top:
            knob = view.space[name]
            tried = {t.config[name] for t in view.trace}
            grid = [knob.at(i / 8) for i in range(9)]
            fresh = [v for v in grid if v not in tried]
            view.random.shuffle(fresh)
            for value in fresh:
                if not view.space.problems(view.config_of({name: value})):
                    found.append(Candidate(changes={name: value}, reason=f"{name} explains the most"))
                    break
        return found[:count] or view.ask(f"Vary {', '.join(top)}.", count)
