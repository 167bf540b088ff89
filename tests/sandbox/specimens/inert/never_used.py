"""The published pattern: the clever class is defined and never referenced."""

from collections import deque

from sandbox.mechanism import Mechanism


class TabuSearchManager:
    def __init__(self, tenure=8):
        self.recent = deque(maxlen=tenure)

    def is_tabu(self, changes):
        return repr(sorted(changes.items())) in self.recent


class Specimen(Mechanism):
    name = "tabu"

    def propose(self, view, count):
        return view.ask(count=count)
