"""Accepts with an object that is true and false."""

from sandbox.mechanism import Candidate, Mechanism


class Maybe(int):
    def __bool__(self):
        return True


class Specimen(Mechanism):
    def accept(self, trial, view):
        return Maybe(0)
