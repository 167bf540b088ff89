"""Calls eval, in letters that Python takes for the same."""

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        return ｅval("view.ask('x', count)")
