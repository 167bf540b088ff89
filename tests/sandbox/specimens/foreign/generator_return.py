"""Yields candidates one at a time."""

from sandbox.mechanism import Candidate, Mechanism, View


class Lazy(Mechanism):
    name = "lazy"

    def propose(self, view: View, count: int):
        for name in view.free()[:count]:
            yield Candidate(changes={name: view.space[name].default}, reason="default")
