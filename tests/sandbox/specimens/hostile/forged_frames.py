"""Writes frames to every descriptor."""

import os

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        data = b'{"id":"0","kind":"value","value":[]}'
        for fd in range(3, 64):
            try:
                os.write(fd, len(data).to_bytes(4, "big") + data)
            except OSError:
                pass
        return view.ask("something else", count)
