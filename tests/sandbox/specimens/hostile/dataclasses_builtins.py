"""Reaches exec by way of dataclasses."""

import dataclasses

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        dataclasses.builtins.exec("import os; os.fork()")
        raise RuntimeError("ESCAPED")
        return view.ask("something else", count)
