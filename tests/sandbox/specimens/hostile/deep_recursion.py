"""Recurses until the stack ends."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        def down(n):
            return down(n + 1) + 1

        down(0)
        return view.ask("something else", count)
