"""Epsilon-greedy knob choice; the caller passes the configuration."""

from dataclasses import dataclass

from sandbox.mechanism import Candidate, Mechanism, View


@dataclass
class EpsilonConfig:
    epsilon: float = 0.1
    step: float = 0.2


class EpsilonGreedy(Mechanism):
    name = "epsilon_greedy"

    def __init__(self, config: EpsilonConfig):
        self.config = config

    def propose(self, view: View, count: int) -> list[Candidate]:
        if view.random.random() < self.config.epsilon:
            return view.ask("Explore.", count)
        return view.ask("Exploit: stay near the best configuration.", count)
