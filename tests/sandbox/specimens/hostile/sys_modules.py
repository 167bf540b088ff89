"""Reaches for the worker that judges it."""

import sys

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        sys.modules["__main__"].__dict__["main"] = None
        sys.modules["sandbox.protocol"].encode = lambda m: b""
        return view.ask("something else", count)
