"""Ends with success, whatever it did."""

import atexit
import os
import sys

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        atexit.register(os._exit, 0)
        sys.exit(1)
