"""Imports by name."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        __import__("os").fork()
        raise RuntimeError("ESCAPED")
        return view.ask("something else", count)
