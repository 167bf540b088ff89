"""Prints without end."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        while True:
            print("x" * 65536)
        return view.ask("something else", count)
