"""Overrides nothing."""

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    name = "nothing"
