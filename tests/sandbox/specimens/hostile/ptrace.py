"""Attaches to other processes and reads their memory."""

import ctypes

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        libc = ctypes.CDLL(None, use_errno=True)
        for call in ((101, 16, 1, 0, 0), (310, 1, 0, 1, 0, 1, 0)):
            if libc.syscall(*call) >= 0:
                raise RuntimeError("ESCAPED")
        raise OSError(ctypes.get_errno(), "refused")
