"""A regular expression that backtracks for ever."""

import re

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        re.match(r"(a+)+$", "a" * 60 + "b")
        return view.ask("something else", count)
