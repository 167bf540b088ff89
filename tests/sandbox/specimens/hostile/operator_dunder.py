"""Spells a special name in a text for methodcaller."""

import operator

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        operator.methodcaller("__" + "subclasses__")(object)
        raise RuntimeError("reached")
