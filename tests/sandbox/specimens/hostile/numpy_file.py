"""Writes a file with an array."""

import numpy as np

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        np.zeros(3).tofile("/etc/owned")
        raise RuntimeError("ESCAPED")
        return view.ask("something else", count)
