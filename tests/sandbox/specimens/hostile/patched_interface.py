"""Changes the interface instead of implementing it."""

from sandbox.mechanism import Mechanism, View


def ask(self, guidance="", count=1):
    raise RuntimeError("patched")


View.ask = ask


class Specimen(Mechanism):
    def propose(self, view, count):
        return view.ask("something else", count)
