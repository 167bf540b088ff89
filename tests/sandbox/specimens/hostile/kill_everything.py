"""Signals every process that it can see."""

import os

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        os.kill(-1, 9)
        os.kill(1, 9)
        raise OSError("still here")
