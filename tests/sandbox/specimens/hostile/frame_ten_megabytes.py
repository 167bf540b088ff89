"""Writes a reply of ten megabytes by hand."""

import os

from sandbox.mechanism import Mechanism

def write(body, length=None):
    frame = (len(body) if length is None else length).to_bytes(4, "big") + body
    for fd in range(3, 16):
        try:
            os.write(fd, frame)
        except OSError:
            pass


class Specimen(Mechanism):
    def propose(self, view, count):
        write(b'{"a": "' + b"x" * 10_000_000 + b'"}')
        return view.ask("something else", count)
