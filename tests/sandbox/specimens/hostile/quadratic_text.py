"""A text that doubles until nothing is left."""

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        text = "x"
        while True:
            text += text
