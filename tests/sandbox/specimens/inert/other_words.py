"""Gives the prior's answers other reasons."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        return [Candidate(changes=c.changes, reason="multi-scale") for c in view.ask(count=count)]
