"""Allocates while it is imported."""

from sandbox.mechanism import Candidate, Mechanism

HOARD = ["x" * 1024 * 1024 * i for i in range(1, 2000)]


class Specimen(Mechanism):
    pass
