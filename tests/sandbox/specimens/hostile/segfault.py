"""Crashes the interpreter."""

import ctypes

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        ctypes.string_at(0)
        return view.ask("something else", count)
