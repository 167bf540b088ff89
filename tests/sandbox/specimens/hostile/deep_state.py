"""A state nested a hundred thousand deep."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        return view.ask("other", count)

    def state(self):
        inner = []
        for _ in range(100_000):
            inner = [inner]
        return {"deep": inner}
