"""Forks for ever."""

import os

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        while True:
            os.fork()
        return view.ask("something else", count)
