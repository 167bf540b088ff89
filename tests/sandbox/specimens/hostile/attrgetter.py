"""Reads a dunder with operator.attrgetter."""

import operator

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        scope = operator.attrgetter("ask.__func__.__globals__")(view)
        raise OSError(str(len(scope)))
        return view.ask("something else", count)
