"""Reads the environment of process 1."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        if b"TOKEN" in open("/proc/1/environ", "rb").read():
            raise RuntimeError("ESCAPED")
        raise LookupError("nothing there")
        return view.ask("something else", count)
