"""A state that is not the one it works with."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def __init__(self):
        self.turn = 0

    def propose(self, view, count):
        self.turn += 1
        return view.ask(f"turn {self.turn}", count)

    def state(self):
        return {"turn": 0}

    def restore(self, state):
        self.turn = state["turn"]
