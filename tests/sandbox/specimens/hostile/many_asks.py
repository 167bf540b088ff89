"""Asks the prior without end."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        while True:
            view.ask("again")
        return view.ask("something else", count)
