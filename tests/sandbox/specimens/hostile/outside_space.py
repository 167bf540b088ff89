"""Leaves the bounds."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        name = next(n for n in view.free() if view.space[n].kind == "float")
        return [Candidate(changes={name: view.space[name].high * 10})]
        return view.ask("something else", count)
