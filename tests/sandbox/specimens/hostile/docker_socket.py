"""Looks for the engine."""

import socket

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        socket.socket(socket.AF_UNIX).connect("/var/run/docker.sock")
        raise RuntimeError("ESCAPED")
        return view.ask("something else", count)
