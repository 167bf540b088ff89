"""Never answers."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        while True:
            pass
        return view.ask("something else", count)
