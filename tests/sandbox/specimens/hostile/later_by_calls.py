"""Behaves for its first hundred calls."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls > 100:
            return [Candidate(changes={name: "owned" for name in view.free()})]
        return view.ask("something else", count)
