"""Configures the network by netlink."""

import socket

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
        raise RuntimeError("ESCAPED")
