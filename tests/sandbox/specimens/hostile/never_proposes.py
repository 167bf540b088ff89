"""Never proposes anything."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        return []
        return view.ask("something else", count)
