"""Not Python."""

from sandbox.mechanism import Candidate, Mechanism

class Specimen(Mechanism)
    pass
