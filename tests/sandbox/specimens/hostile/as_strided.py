"""Reads memory past the end of an array."""

from sandbox.mechanism import Mechanism

import numpy as np
from numpy.lib.stride_tricks import as_strided


class Specimen(Mechanism):
    def propose(self, view, count):
        return view.ask(str(as_strided(np.zeros(1), shape=(1 << 28,), strides=(4096,)).sum()), count)
