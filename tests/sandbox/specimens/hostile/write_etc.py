"""Writes to the file system."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        open("/etc/owned", "w").write("x")
        raise RuntimeError("ESCAPED")
        return view.ask("something else", count)
