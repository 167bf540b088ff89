"""Forks at its first call."""

import os

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        if os.fork() == 0:
            os._exit(0)
        raise RuntimeError("ESCAPED")
        return view.ask("something else", count)
