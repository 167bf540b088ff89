"""Lifts the limit of recursion and falls through the stack."""

import sys

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        sys.setrecursionlimit(10**9)
        def fall(x):
            return sorted([x], key=fall)
        fall(1)
        return view.ask("something else", count)
