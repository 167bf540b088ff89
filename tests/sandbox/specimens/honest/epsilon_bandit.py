"""An epsilon-greedy bandit over knobs: the arm is which knob to move."""

from sandbox.mechanism import Candidate, Knob, KnobValue, Mechanism, Trial, View

EPSILON = 0.2
STEP = 0.15


def nudge(knob: Knob, value: KnobValue, step: float) -> KnobValue:
    if knob.kind == "choice":
        index = knob.choices.index(value)
        return knob.choices[(index + 1) % len(knob.choices)]
    return knob.at(knob.position(value) + step)


class EpsilonBandit(Mechanism):
    name = "epsilon_bandit"

    def _value(self, view: View, name: str) -> float:
        gains = []
        best = view.trace[0].metric
        for trial in view.trace[1:]:
            if name in trial.changes:
                if trial.metric is None:
                    gains.append(-1.0)
                elif best is not None:
                    gain = best - trial.metric if view.minimize else trial.metric - best
                    gains.append(gain)
        return sum(gains) / len(gains) if gains else float("inf")

    def propose(self, view: View, count: int) -> list[Candidate]:
        knobs = view.free()
        picks = []
        for _ in range(count):
            if view.random.random() < EPSILON:
                name = view.random.choice(knobs)
            else:
                top = max(self._value(view, n) for n in knobs)
                name = view.random.choice([n for n in knobs if self._value(view, n) == top])
            step = view.random.choice((-STEP, STEP))
            value = nudge(view.space[name], view.best.config[name], step)
            picks.append(Candidate(changes={name: value}, reason=f"arm {name}"))
        return [c for c in picks if not view.space.problems(view.config_of(c.changes))] or view.ask(
            count=count
        )
