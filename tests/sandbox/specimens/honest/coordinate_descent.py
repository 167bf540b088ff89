"""Coordinate descent: one knob after the other, the step halves when both directions failed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import product

from sandbox.mechanism import Candidate, Mechanism, Trial, View


@dataclass
class Axis:
    """How one knob is being searched."""

    step: float = 0.25
    misses: int = 0

    def missed(self) -> None:
        self.misses += 1
        if self.misses >= 2:
            self.step = max(self.step / 2, 0.01)
            self.misses = 0


class CoordinateDescent(Mechanism):
    name = "coordinate_descent"

    def __init__(self) -> None:
        self._axes: dict[str, Axis] = {}
        self._turn = 0

    def propose(self, view: View, count: int) -> list[Candidate]:
        found: list[Candidate] = []
        names = view.free()
        for offset, sign in product(range(len(names)), (1, -1)):
            if len(found) >= count:
                break
            name = names[(self._turn + offset) % len(names)]
            axis = self._axes.setdefault(name, Axis())
            knob = view.space[name]
            now = view.best.config[name]
            there = knob.at(knob.position(now) + sign * axis.step)
            if there != now and not view.space.problems(view.config_of({name: there})):
                found.append(Candidate(changes={name: there}, reason=f"{name} by {sign * axis.step:+.3f}"))
        self._turn += 1
        return found if found else view.ask(count=count)

    def observe(self, trial: Trial, view: View) -> None:
        if trial.status == "kept":
            return
        for name in trial.changes:
            if (axis := self._axes.get(name)) is not None:
                axis.missed()

    def state(self) -> dict:
        return {"turn": self._turn, "axes": {n: asdict(a) for n, a in self._axes.items()}}

    def restore(self, state: dict) -> None:
        self._turn = int(state.get("turn", 0))
        self._axes = {n: Axis(**a) for n, a in state.get("axes", {}).items()}
