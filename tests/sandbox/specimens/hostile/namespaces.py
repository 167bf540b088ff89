"""Unshares namespaces, mounts, and enters others."""

import ctypes

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        libc = ctypes.CDLL(None, use_errno=True)
        for call in ((272, 0x10000000), (272, 0x00020000), (165, b"none", b"/tmp", b"tmpfs", 0, 0), (308, 0, 0)):
            if libc.syscall(*call) >= 0:
                raise RuntimeError("ESCAPED")
        raise OSError(ctypes.get_errno(), "refused")
