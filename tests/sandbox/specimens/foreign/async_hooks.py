"""Asynchronous hooks on the right base class."""

from sandbox.mechanism import Candidate, Mechanism, Trial, View


class AsyncMechanism(Mechanism):
    name = "async_mechanism"

    async def propose(self, view: View, count: int) -> list[Candidate]:
        return view.ask("something new", count)

    async def accept(self, trial: Trial, view: View) -> bool:
        return trial.metric is not None
