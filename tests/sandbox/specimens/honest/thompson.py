"""Thompson sampling over which knob to ask the prior about; counts survive a restart."""

from __future__ import annotations

from sandbox.mechanism import Candidate, Mechanism, Trial, View


class Thompson(Mechanism):
    name = "thompson"

    def __init__(self) -> None:
        self.wins: dict[str, int] = {}
        self.losses: dict[str, int] = {}

    def propose(self, view: View, count: int) -> list[Candidate]:
        drawn = {
            name: view.random.betavariate(1 + self.wins.get(name, 0), 1 + self.losses.get(name, 0))
            for name in view.free()
        }
        chosen = max(drawn, key=lambda name: (drawn[name], name))
        return view.ask(f"Change only {chosen}.", count)[:count]

    def observe(self, trial: Trial, view: View) -> None:
        book = self.wins if trial.status == "kept" else self.losses
        for name in trial.changes:
            book[name] = book.get(name, 0) + 1

    def state(self) -> dict:
        return {"wins": self.wins, "losses": self.losses}

    def restore(self, state: dict) -> None:
        self.wins = dict(state["wins"])
        self.losses = dict(state["losses"])
