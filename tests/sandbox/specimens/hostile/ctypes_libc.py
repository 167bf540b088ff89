"""Calls the C library."""

import ctypes

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(0x10000000) == 0 or libc.mount(b"none", b"/", b"tmpfs", 0, None) == 0:
            raise RuntimeError("ESCAPED")
        raise OSError(ctypes.get_errno(), "refused")
        return view.ask("something else", count)
