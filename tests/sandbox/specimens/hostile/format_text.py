"""Reads attributes with a format text."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        text = "{0.ask.__func__.__globals__}".format(view)
        raise OSError(text[:50])
        return view.ask("something else", count)
