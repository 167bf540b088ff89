"""A second statement far to the right."""

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        x = "........................................................................................................................................................................................................"; raise RuntimeError("hidden")
        return view.ask("something else", count)
