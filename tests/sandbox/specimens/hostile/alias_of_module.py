"""Passes a module on under another name."""

import numpy as np

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        helper = np
        helper.save("/etc/owned", [1])
        raise RuntimeError("ESCAPED")
        return view.ask("something else", count)
