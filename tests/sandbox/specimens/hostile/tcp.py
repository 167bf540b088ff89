"""Connects to the outside."""

import socket

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        socket.create_connection(("1.1.1.1", 443), timeout=2)
        raise RuntimeError("ESCAPED")
        return view.ask("something else", count)
