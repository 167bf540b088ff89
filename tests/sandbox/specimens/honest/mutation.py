"""Random mutation: one to three knobs, drawn within their bounds without helpers."""

import math

from sandbox.mechanism import Candidate, Mechanism, View


class Mutation(Mechanism):
    name = "mutation"

    def _draw(self, view, name):
        knob = view.space[name]
        rng = view.random
        if knob.kind == "choice":
            return rng.choice(knob.choices)
        if knob.kind == "power_of_two":
            return 2 ** rng.randint(math.ceil(math.log2(knob.low)), math.floor(math.log2(knob.high)))
        if knob.kind == "int":
            return rng.randint(math.ceil(knob.low), math.floor(knob.high))
        if knob.log:
            value = math.exp(rng.uniform(math.log(knob.low), math.log(knob.high)))
        else:
            value = rng.uniform(knob.low, knob.high)
        return min(max(value, knob.low), knob.high)

    def propose(self, view: View, count: int) -> list[Candidate]:
        result = []
        for _ in range(count):
            for _attempt in range(20):
                many = view.random.randint(1, 3)
                names = view.random.sample(view.free(), k=min(many, len(view.free())))
                changes = {n: self._draw(view, n) for n in names}
                if not view.space.problems(view.config_of(changes)):
                    result.append(Candidate(changes=changes, reason="mutation of " + ", ".join(names)))
                    break
        return result
