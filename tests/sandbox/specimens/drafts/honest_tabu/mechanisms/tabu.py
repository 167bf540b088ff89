"""Tabu search: refuse what was tried lately, and ask again with guidance."""

from __future__ import annotations

from collections import deque
from typing import Any

from sandbox.mechanism import Candidate, Mechanism, View

TENURE = 8
ASKS = 4


class Tabu(Mechanism):
    name = "tabu"

    def __init__(self) -> None:
        self._recent: deque[str] = deque(maxlen=TENURE)

    @staticmethod
    def _key(view: View, candidate: Candidate) -> str:
        return repr(sorted(view.config_of(candidate.changes).items()))

    def propose(self, view: View, count: int) -> list[Candidate]:
        tried = {repr(sorted(trial.config.items())) for trial in view.trace[-TENURE:]}
        tried |= set(self._recent)
        guidance = ""
        chosen: list[Candidate] = []
        for _ in range(ASKS):
            refused: set[str] = set()
            for candidate in view.ask(guidance, count):
                key = self._key(view, candidate)
                if key in tried:
                    refused |= set(candidate.changes)
                    continue
                tried.add(key)
                chosen.append(candidate)
            if len(chosen) >= count or not refused:
                break
            guidance = f"Do not touch {', '.join(sorted(refused))} again; try other knobs."
        chosen = chosen[:count]
        self._recent.extend(self._key(view, c) for c in chosen)
        return chosen

    def state(self) -> dict[str, Any]:
        return {"recent": list(self._recent)}

    def restore(self, state: dict[str, Any]) -> None:
        self._recent = deque(state.get("recent", []), maxlen=TENURE)
