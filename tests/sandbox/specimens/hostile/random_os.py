"""Reaches os by way of random."""

import random

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        random._os.fork()
        raise RuntimeError("ESCAPED")
        return view.ask("something else", count)
