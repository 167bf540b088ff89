"""Never finishes its import."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    pass


while True:
    pass
