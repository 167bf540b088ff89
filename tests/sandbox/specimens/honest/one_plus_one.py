"""A (1+1) evolution strategy with the one-fifth success rule on a shared step size."""

import dataclasses
import math

from sandbox.mechanism import Candidate, Mechanism, Trial, View


@dataclasses.dataclass(slots=True)
class StepSize:
    sigma: float = 0.2
    tried: int = 0

    def adapt(self, success: bool) -> None:
        self.tried += 1
        self.sigma *= math.exp(0.8) if success else math.exp(-0.2)
        self.sigma = min(0.5, max(0.01, self.sigma))


class OnePlusOne(Mechanism):
    name = "one_plus_one"

    def __init__(self) -> None:
        self.step = StepSize()

    def propose(self, view: View, count: int) -> list[Candidate]:
        made: list[Candidate] = []
        for _ in range(40 * count):
            changes = {}
            for name in view.free():
                knob = view.space[name]
                if view.random.random() > 2 / len(view.free()):
                    continue
                at = knob.position(view.best.config[name])
                value = knob.at(view.random.gauss(at, self.step.sigma))
                if value != view.best.config[name]:
                    changes[name] = value
            if changes and not view.space.problems(view.config_of(changes)):
                made.append(Candidate(changes=changes, reason=f"mutation, sigma {self.step.sigma:.3f}"))
                if len(made) == count:
                    return made
        return made or view.ask(count=count)

    def observe(self, trial: Trial, view: View) -> None:
        self.step.adapt(trial.status == "kept")

    def state(self) -> dict:
        return dataclasses.asdict(self.step)

    def restore(self, state: dict) -> None:
        self.step = StepSize(**state)
