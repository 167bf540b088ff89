"""Sorts what never ends."""

import itertools

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        return sorted(itertools.count(), key=lambda x: -x)
