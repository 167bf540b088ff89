"""Loads a program into the kernel."""

import ctypes

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        libc = ctypes.CDLL(None, use_errno=True)
        for call in ((321, 0, ctypes.create_string_buffer(72), 72), (298, ctypes.create_string_buffer(128), 0, -1, -1, 0)):
            if libc.syscall(*call) >= 0:
                raise RuntimeError("ESCAPED")
        raise OSError(ctypes.get_errno(), "refused")
