"""Allocates without end."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        hoard = []
        while True:
            hoard.append(bytearray(16 * 1024 * 1024))
        return view.ask("something else", count)
