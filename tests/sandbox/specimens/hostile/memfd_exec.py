"""Executes from memory."""

import os

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        fd = os.memfd_create("x")
        os.write(fd, b"#!/bin/sh\n")
        os.execve(f"/proc/self/fd/{fd}", ["x"], {})
        raise RuntimeError("ESCAPED")
        return view.ask("something else", count)
