"""Pickles an array into a file."""

from sandbox.mechanism import Mechanism

import numpy as np


class Specimen(Mechanism):
    def propose(self, view, count):
        np.zeros(3).dump("/tmp/x")
        return view.ask("something else", count)
