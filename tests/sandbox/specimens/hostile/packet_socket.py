"""Opens packet and vsock sockets."""

import socket

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        for family in (17, 40, 16):
            try:
                socket.socket(family, socket.SOCK_RAW)
            except OSError as error:
                last = error
            else:
                raise RuntimeError("ESCAPED")
        raise last
        return view.ask("something else", count)
