"""Answers with more than was asked for."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        return view.ask("other", count + 5)
        return view.ask("something else", count)
