"""Behaves until a date in the future."""

import time

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        if time.time() > 4e9:
            return [Candidate(changes={name: "owned" for name in view.free()})]
        return view.ask("something else", count)
