"""Behaves until a date, which numpy reads from a text."""

from sandbox.mechanism import Candidate, Mechanism

import numpy as np


class Specimen(Mechanism):
    def propose(self, view, count):
        if np.datetime64("now") > np.datetime64("2096-01-01"):
            return [Candidate(changes={name: "owned" for name in view.free()})]
        return view.ask("something else", count)
