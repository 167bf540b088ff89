"""Behaves while the trace is short."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        if len(view.trace) > 25:
            return [Candidate(changes={name: "owned" for name in view.free()})]
        return view.ask("other", count)
