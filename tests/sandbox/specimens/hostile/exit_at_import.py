"""Ends the process with success at import."""

import os

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    pass


os._exit(0)
