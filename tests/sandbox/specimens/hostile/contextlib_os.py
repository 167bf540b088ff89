"""Reaches os by way of contextlib."""

import contextlib

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        if contextlib.os.system("id") == 0:
            raise RuntimeError("ESCAPED")
        raise OSError("the shell did not run")
        return view.ask("something else", count)
