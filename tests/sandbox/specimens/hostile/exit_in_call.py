"""Ends the process with success in a call."""

import os

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        os._exit(0)
        return view.ask("something else", count)
