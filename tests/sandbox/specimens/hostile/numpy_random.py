"""Draws from an unseeded numpy generator."""

import numpy as np

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        return view.ask(f"try {np.random.default_rng().random()}", count)
        return view.ask("something else", count)
