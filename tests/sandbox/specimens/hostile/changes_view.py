"""Writes better metrics into the trials that it is shown."""

from sandbox.mechanism import Candidate, Mechanism, View


class ChangesView(Mechanism):
    def propose(self, view: View, count: int) -> list[Candidate]:
        for trial in view.trace:
            object.__setattr__(trial, "metric", 0.0)
        return view.ask(guidance="as good as it gets", count=count)
