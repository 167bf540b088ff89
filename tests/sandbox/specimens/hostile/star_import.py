"""Imports everything."""

from math import *

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        raise OSError(str(pi))
        return view.ask("something else", count)
