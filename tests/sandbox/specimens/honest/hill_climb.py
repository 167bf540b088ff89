"""Hill climbing with a step size that grows on success and shrinks on failure."""

from __future__ import annotations

from typing import Any

from sandbox.mechanism import Candidate, Mechanism, Trial, View

GROW, SHRINK = 1.6, 0.7
SMALLEST, LARGEST = 0.02, 0.5


class HillClimb(Mechanism):
    """One knob at a time, in turn."""

    name = "hill_climb"

    def __init__(self) -> None:
        self.step = 0.2
        self.turn = 0

    def propose(self, view: View, count: int) -> list[Candidate]:
        names = view.free()
        found: list[Candidate] = []
        for _ in range(4 * count):
            name = names[self.turn % len(names)]
            sign = -1 if (self.turn // len(names)) % 2 else 1
            self.turn += 1
            knob, now = view.space[name], view.best.config[name]
            value = knob.at(knob.position(now) + sign * self.step)
            if value == now or view.space.problems(view.config_of({name: value})):
                continue
            found.append(Candidate(changes={name: value}, reason=f"{name} by {sign * self.step:+.2f}"))
            if len(found) == count:
                break
        return found or view.ask(count=count)

    def observe(self, trial: Trial, view: View) -> None:
        factor = GROW if trial.status == "kept" else SHRINK
        self.step = min(LARGEST, max(SMALLEST, self.step * factor))

    def state(self) -> dict[str, Any]:
        return {"step": self.step, "turn": self.turn}

    def restore(self, state: dict[str, Any]) -> None:
        self.step = float(state["step"])
        self.turn = int(state["turn"])
