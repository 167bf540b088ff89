"""A condition that never holds."""

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        if len(view.trace) > 10_000:
            return view.ask("restart", count)
        return view.ask(count=count)
