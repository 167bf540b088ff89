"""A key stands in the source."""

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        TOKEN = "sk-proj-4fT9aQ2xLm8Vr3Zc7Wy1Bn6Kp0Hd5Gs"
        return view.ask("something else", count)
