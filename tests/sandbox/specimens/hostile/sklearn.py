"""Needs a package that the image does not have."""

from sklearn.gaussian_process import GaussianProcessRegressor

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        GaussianProcessRegressor()
        return view.ask("other", count)
