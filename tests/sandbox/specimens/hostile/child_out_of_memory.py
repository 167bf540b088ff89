"""A child is killed for memory, and the parent ends with success."""

import os

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        if os.fork() == 0:
            hoard = [bytearray(1 << 24) for _ in range(1000)]
        os.wait()
        os._exit(0)
