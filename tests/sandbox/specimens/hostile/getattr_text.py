"""Spells a dunder in pieces."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        base = getattr((), "__cla" + "ss__")
        builtin = getattr(view.ask, "__glob" + "als__")["__builtins__"]
        run = builtin["open"]
        run("/etc/owned", "w")
        raise RuntimeError("ESCAPED")
        return view.ask("something else", count)
