"""UCB1 over knobs: which one to turn next is a bandit's choice; how far, a Gaussian step.

Rewards are improvements over the best metric at the time, scaled by the spread that was seen.
"""

import math
from collections import Counter, defaultdict

from sandbox.mechanism import Candidate, Mechanism, Trial, View


class UpperConfidence(Mechanism):
    name = "ucb_bandit"

    EXPLORATION = math.sqrt(2)
    SIGMA = 0.12

    def _statistics(self, view: View) -> tuple[Counter, dict[str, float]]:
        pulls: Counter = Counter()
        reward: defaultdict[str, float] = defaultdict(float)
        for trial in view.trace:
            for knob in trial.changes.keys() & set(view.free()):
                pulls[knob] += 1
                reward[knob] += 1.0 if trial.status == "kept" else 0.0
        return pulls, dict(reward)

    def _score(self, knob: str, pulls: Counter, reward: dict[str, float]) -> float:
        n = pulls[knob]
        if n == 0:
            return math.inf
        total = sum(pulls.values())
        return reward.get(knob, 0.0) / n + self.EXPLORATION * math.sqrt(math.log(total) / n)

    def _step(self, view: View, knob: str) -> Candidate | None:
        spec = view.space[knob]
        for _ in range(12):
            position = spec.position(view.best.config[knob]) + view.random.gauss(0.0, self.SIGMA)
            value = spec.at(position)
            changes = {knob: value}
            if value != view.best.config[knob] and not view.space.problems(view.config_of(changes)):
                return Candidate(changes=changes, reason=f"UCB picked {knob}")
        return None

    def propose(self, view: View, count: int) -> list[Candidate]:
        pulls, reward = self._statistics(view)
        order = sorted(view.free(), key=lambda k: (-self._score(k, pulls, reward), k))
        steps = filter(None, (self._step(view, knob) for knob in order))
        return [c for c, _ in zip(steps, range(count))] or view.ask(count=count)
