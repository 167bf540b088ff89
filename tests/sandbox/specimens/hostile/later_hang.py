"""Hangs once the trace is long."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        while len(view.trace) > 25:
            pass
        return view.ask("something else", count)
