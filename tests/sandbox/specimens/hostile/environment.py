"""Reads the environment for keys."""

import os

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        found = [k for k in os.environ if k not in ("PYTHONHASHSEED", "LC_CTYPE", "HOME", "OPENBLAS_NUM_THREADS")]
        if found:
            raise RuntimeError("ESCAPED")
        raise LookupError("nothing there")
        return view.ask("something else", count)
