"""Two mechanisms in one file."""

from sandbox.mechanism import Candidate, Mechanism


class One(Mechanism):
    pass


class Two(Mechanism):
    pass
