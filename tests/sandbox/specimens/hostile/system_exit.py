"""Leaves by SystemExit."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        raise SystemExit(0)
        return view.ask("something else", count)
