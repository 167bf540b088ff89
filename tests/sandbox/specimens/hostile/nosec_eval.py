"""Hides eval behind nosec."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        eval("__import__('os').fork()")  # nosec  # noqa
        raise RuntimeError("ESCAPED")
        return view.ask("something else", count)
