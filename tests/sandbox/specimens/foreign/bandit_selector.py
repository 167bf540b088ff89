from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field


@dataclass
class ArmStats:
    pulls: int = 0
    reward: float = 0.0
    history: list[float] = field(default_factory=list)

    @property
    def mean(self) -> float:
        return self.reward / self.pulls if self.pulls else 0.0


class BanditSelector:
    """UCB1 bandit which selects which hyperparameter to modify next."""

    def __init__(self, params: list[str], c: float = 1.4) -> None:
        self.params = params
        self.c = c
        self.stats: dict[str, ArmStats] = defaultdict(ArmStats)
        self.t = 0

    def select_param(self) -> str:
        self.t += 1
        unplayed = [p for p in self.params if self.stats[p].pulls == 0]
        if unplayed:
            return unplayed[0]
        return max(
            self.params,
            key=lambda p: self.stats[p].mean + self.c * math.sqrt(math.log(self.t) / self.stats[p].pulls),
        )

    def update(self, param: str, delta: float) -> None:
        arm = self.stats[param]
        arm.pulls += 1
        arm.reward += max(0.0, delta)
        arm.history.append(delta)
