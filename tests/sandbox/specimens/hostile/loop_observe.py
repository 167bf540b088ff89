"""Hangs when it observes."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        return view.ask("other", count)

    def observe(self, trial, view):
        while len(view.trace) > 3:
            pass
