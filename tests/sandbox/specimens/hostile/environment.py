"""Reads the environment for keys."""

import os

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        own = "PYTHONHASHSEED LC_CTYPE HOME PWD OPENBLAS_NUM_THREADS OMP_NUM_THREADS "
        own += "JOBLIB_MULTIPROCESSING LOKY_MAX_CPU_COUNT"  # the image and the worker set these
        found = [key for key in os.environ if key not in own.split()]
        if found:
            raise RuntimeError("ESCAPED")
        raise LookupError("nothing there")
        return view.ask("something else", count)
