"""A float that claims to be within every bound."""

from sandbox.mechanism import Candidate, Mechanism


class Lie(float):
    def __le__(self, other):
        return True

    __lt__ = __ge__ = __gt__ = __eq__ = __le__
    __hash__ = float.__hash__


class Specimen(Mechanism):
    def propose(self, view, count):
        return [Candidate(changes={name: Lie(1e9) for name in view.free()})]
