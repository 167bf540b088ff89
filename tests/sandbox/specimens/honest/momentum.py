"""Momentum on the logarithm of every knob: directions that paid off are kept up, with friction."""

from __future__ import annotations

import math
from types import MappingProxyType

from sandbox.mechanism import Candidate, Mechanism, Trial, View

FRICTION = 0.6
DEFAULTS = MappingProxyType({"gain": 0.5, "limit": 0.3})


class Momentum(Mechanism):
    name = "momentum"

    def __init__(self) -> None:
        self.velocity: dict[str, float] = {}

    def propose(self, view: View, count: int) -> list[Candidate]:
        changes = {}
        for name, speed in sorted(self.velocity.items(), key=lambda kv: (-abs(kv[1]), kv[0])):
            if name in view.frozen or name not in view.space or abs(speed) < 0.01:
                continue
            knob = view.space[name]
            value = knob.at(knob.position(view.best.config[name]) + speed)
            if value != view.best.config[name]:
                changes[name] = value
        own = []
        if changes and not view.space.problems(view.config_of(changes)):
            own = [Candidate(changes=changes, reason="momentum")]
        return own + view.ask(count=count - len(own)) if count > len(own) else own[:count]

    def observe(self, trial: Trial, view: View) -> None:
        for name in self.velocity:
            self.velocity[name] *= FRICTION
        previous = [t for t in view.trace if t.status == "kept" and t.number < trial.number]
        if trial.status != "kept" or not previous:
            return
        for name in trial.changes:
            knob = view.space[name]
            moved = knob.position(trial.config[name]) - knob.position(previous[-1].config[name])
            bounded = math.copysign(min(abs(moved), DEFAULTS["limit"]), moved)
            self.velocity[name] = self.velocity.get(name, 0.0) + DEFAULTS["gain"] * bounded

    def state(self) -> dict[str, object]:
        return {"velocity": self.velocity.copy()}

    def restore(self, state: dict[str, object]) -> None:
        velocity = state.get("velocity")
        self.velocity = dict(velocity) if isinstance(velocity, dict) else {}
