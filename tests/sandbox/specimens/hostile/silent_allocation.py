"""Reserves memory that it never writes to, and then writes."""

from sandbox.mechanism import Mechanism

import numpy as np


class Specimen(Mechanism):
    def propose(self, view, count):
        hoard = np.ones(1 << 30, dtype="u1")
        return view.ask(str(hoard.sum()), count)
