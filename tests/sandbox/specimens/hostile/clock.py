"""Decides by the clock."""

import time

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        return view.ask(f"try {time.time_ns()}", count)
        return view.ask("something else", count)
