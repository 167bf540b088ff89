"""Looks for services of the host on loopback."""

import socket

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        for host in ("127.0.0.1", "::1", "172.17.0.1", "host.docker.internal"):
            for port in (22, 80, 2375, 5432, 8000):
                try:
                    socket.create_connection((host, port), timeout=0.05)
                except OSError:
                    continue
                raise RuntimeError("ESCAPED")
        raise OSError("nobody there")
