"""Lets numpy read raw memory."""

import numpy as np

from sandbox.mechanism import Mechanism


class Window:
    __array_interface__ = {"data": (4096, True), "shape": (64,), "typestr": "|u1", "version": 3}


class Specimen(Mechanism):
    def propose(self, view, count):
        return view.ask(str(np.asarray(Window()).sum()), count)
