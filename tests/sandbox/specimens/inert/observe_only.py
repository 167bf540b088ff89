"""Watches, and never decides."""

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def __init__(self):
        self.seen = 0

    def observe(self, trial, view):
        self.seen += 1

    def state(self):
        return {"seen": self.seen}

    def restore(self, state):
        self.seen = state["seen"]
