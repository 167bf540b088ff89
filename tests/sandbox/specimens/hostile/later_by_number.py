"""Floods once trials have high numbers."""

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        if view.trace[-1].number > 300:
            print("x" * 10_000_000)
        return view.ask("something else", count)
