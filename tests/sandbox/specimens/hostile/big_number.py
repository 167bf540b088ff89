"""One expression that fills the time."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        10 ** (10 ** 10)
        return view.ask("something else", count)
