"""An identifier with a letter that only looks Latin."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        sсоre = 1
        score = 2
        if sсоre != score:
            raise OSError("other")
        return view.ask("something else", count)
