"""A hidden character in a name that is compared."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        if "ask" != "a​sk":
            raise OSError("other")
        return view.ask("something else", count)
