"""The same inside of a formatted text, where no name is seen."""

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        return view.ask(f"{ｅval('1')}", count)
