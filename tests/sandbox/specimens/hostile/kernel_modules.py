"""Loads modules, another kernel, and opens files by handle."""

import ctypes

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        libc = ctypes.CDLL(None, use_errno=True)
        for call in ((175, 0, 0, b""), (313, 0, b"", 0), (246, 0, 0, 0, 0), (304, -100, 0, 0), (169, 0xfee1dead, 672274793, 0)):
            if libc.syscall(*call) >= 0:
                raise RuntimeError("ESCAPED")
        raise OSError(ctypes.get_errno(), "refused")
