"""Reaches exec by way of numpy."""

import numpy as np

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        np.testing.runstring("import os; os.fork()", {})
        raise RuntimeError("ESCAPED")
        return view.ask("something else", count)
