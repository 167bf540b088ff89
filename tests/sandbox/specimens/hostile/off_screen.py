"""Code pushed off the screen."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        x = 1                                                                                                                        ; raise OSError("hidden")
        return view.ask("something else", count)
