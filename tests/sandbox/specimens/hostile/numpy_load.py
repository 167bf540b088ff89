"""Loads a pickle with numpy."""

import numpy as np

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        np.load("/proc/self/environ", allow_pickle=True)
        raise RuntimeError("ESCAPED")
        return view.ask("something else", count)
