"""Needs a package that the image does not have."""

from botorch.models import SingleTaskGP

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        SingleTaskGP()
        return view.ask("other", count)
