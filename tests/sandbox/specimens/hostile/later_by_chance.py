"""Leaves the space once in fifty calls."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        if view.random.random() < 0.02:
            return [Candidate(changes={name: "owned" for name in view.free()})]
        return view.ask("something else", count)
