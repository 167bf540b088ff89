"""Talks to the hypervisor."""

import socket

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        socket.socket(40, socket.SOCK_STREAM).connect((2, 1024))
        raise RuntimeError("ESCAPED")
