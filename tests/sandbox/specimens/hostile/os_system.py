"""Runs a shell command."""

import os

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        if os.system("id") == 0:
            raise RuntimeError("ESCAPED")
        raise OSError("the shell did not run")
        return view.ask("something else", count)
