"""EXP3: exponential weights over knobs, for rewards that drift while the search moves on."""

from __future__ import annotations

import math
from typing import Any

from sandbox.mechanism import Candidate, Mechanism, Trial, View

GAMMA = 0.2


class Exp3(Mechanism):
    name = "exp3"

    def __init__(self):
        self.log_weights: dict[str, float] = {}

    def probabilities(self, names: list[str]) -> list[float]:
        logs = [self.log_weights.get(n, 0.0) for n in names]
        top = max(logs)
        weights = [math.exp(x - top) for x in logs]
        total = sum(weights)
        return [(1 - GAMMA) * w / total + GAMMA / len(names) for w in weights]

    def propose(self, view: View, count: int) -> list[Candidate]:
        names = view.free()
        chosen = view.random.choices(names, weights=self.probabilities(names), k=count)
        guidance = "Change only " + " or ".join(sorted(set(chosen))) + "."
        return view.ask(guidance, count)

    def observe(self, trial: Trial, view: View) -> None:
        names = view.free()
        odds = dict(zip(names, self.probabilities(names)))
        gain = 1.0 if trial.status == "kept" else 0.0
        for name in trial.changes:
            if name in odds:
                self.log_weights[name] = (
                    self.log_weights.get(name, 0.0) + GAMMA * gain / (odds[name] * len(names))
                )

    def state(self) -> dict[str, Any]:
        return {"log_weights": dict(self.log_weights)}

    def restore(self, state: dict[str, Any]) -> None:
        self.log_weights.update(state["log_weights"])
