"""Tabs push a statement off the screen."""

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        x = 1																														;raise RuntimeError("hidden")
        return view.ask("something else", count)
