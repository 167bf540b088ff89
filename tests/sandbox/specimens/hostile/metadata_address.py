"""Asks the cloud's metadata address for credentials."""

import socket

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        socket.create_connection(("169.254.169.254", 80), timeout=1)
        raise RuntimeError("ESCAPED")
