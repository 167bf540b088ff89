"""Listens on an abstract socket, where no file permission holds."""

import socket

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        server = socket.socket(socket.AF_UNIX)
        server.connect("\0/containerd-shim/x")
        raise RuntimeError("ESCAPED")
