"""Restarts from the archive of elites: after too many misses it goes back to an earlier best."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from typing import Any

from sandbox.mechanism import Candidate, Mechanism, Trial, View

PATIENCE = 5
SIZE = 4


@dataclass(order=True)
class Elite:
    cost: float
    config: dict[str, Any] = field(compare=False)


class ElitistRestart(Mechanism):
    name = "elitist_restart"

    def __init__(self) -> None:
        self.elites: list[Elite] = []
        self.misses = 0
        self.turn = 0

    def propose(self, view: View, count: int) -> list[Candidate]:
        if self.misses < PATIENCE or not self.elites:
            return view.ask(count=count)
        self.misses = 0
        self.turn += 1
        elite = self.elites[self.turn % len(self.elites)]
        changes = {n: elite.config[n] for n in view.free() if elite.config[n] != view.best.config[n]}
        kicked = view.random.choice(view.free())
        knob = view.space[kicked]
        changes[kicked] = knob.at(knob.position(view.best.config[kicked]) + view.random.choice((-0.2, 0.2)))
        if view.space.problems(view.config_of(changes)):
            return view.ask("Start again from an earlier good configuration.", count)
        return [Candidate(changes=changes, reason="back to an elite, with a kick")]

    def observe(self, trial: Trial, view: View) -> None:
        if trial.status == "kept":
            self.misses = 0
        else:
            self.misses += 1
        if trial.metric is not None:
            cost = trial.metric if view.minimize else -trial.metric
            insort(self.elites, Elite(cost, dict(trial.config)))
            del self.elites[SIZE:]

    def state(self) -> dict[str, Any]:
        return {
            "elites": [[e.cost, e.config] for e in self.elites],
            "misses": self.misses,
            "turn": self.turn,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.elites = [Elite(cost, dict(config)) for cost, config in state["elites"]]
        self.misses, self.turn = state["misses"], state["turn"]
