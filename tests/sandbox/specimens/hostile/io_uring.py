"""Sets up io_uring, which does files and sockets behind seccomp's back."""

import ctypes

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        libc = ctypes.CDLL(None, use_errno=True)
        for call in ((425, 8, ctypes.create_string_buffer(120)), (426, 0, 0, 0, 0, 0)):
            if libc.syscall(*call) >= 0:
                raise RuntimeError("ESCAPED")
        raise OSError(ctypes.get_errno(), "refused")
