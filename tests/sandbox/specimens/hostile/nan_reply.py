"""Proposes NaN."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        return [Candidate(changes={view.free()[0]: float("nan")})]
        return view.ask("something else", count)
