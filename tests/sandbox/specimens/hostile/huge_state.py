"""A state over the limit."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        return view.ask("other", count)

    def state(self):
        return {"hoard": ["x" * 1000] * 100}
