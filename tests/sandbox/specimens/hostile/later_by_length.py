"""Hangs once the trace has two hundred trials."""

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        while len(view.trace) >= 200:
            pass
        return view.ask("something else", count)
