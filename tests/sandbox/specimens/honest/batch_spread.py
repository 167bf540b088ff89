"""Batches: the prior's first candidate as it is, the others moved apart from it."""

from sandbox.mechanism import Candidate, Mechanism, View


class BatchSpread(Mechanism):
    name = "batch_spread"

    def propose(self, view: View, count: int) -> list[Candidate]:
        first = view.ask(count=1)
        if count == 1 or not first:
            return first
        taken = set(first[0].changes)
        batch = list(first)
        for name in view.free():
            if len(batch) >= count:
                break
            if name in taken:
                continue
            knob = view.space[name]
            where = knob.position(view.best.config[name])
            value = knob.at(where + 0.25 if where < 0.5 else where - 0.25)
            if not view.space.problems(view.config_of({name: value})):
                batch.append(Candidate(changes={name: value}, reason=f"spread to {name}"))
        return batch
