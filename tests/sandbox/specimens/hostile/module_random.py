"""Draws from the unseeded module."""

import random

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        return view.ask(f"try {random.random()}", count)
        return view.ask("something else", count)
