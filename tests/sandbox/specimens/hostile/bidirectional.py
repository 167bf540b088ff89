"""A comment that turns the line around."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        access = "user‮ ⁦# only here⁩ ⁦"
        raise OSError(access)
        return view.ask("something else", count)
