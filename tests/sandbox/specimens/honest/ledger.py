"""Keeps a ledger of gains by knob in dataclasses and follows the steepest."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any, ClassVar

from sandbox.mechanism import Candidate, KnobValue, Mechanism, Trial, View


@dataclass
class Entry:
    gains: list[float] = field(default_factory=list)
    direction: int = 1

    @property
    def mean(self) -> float:
        return fmean(self.gains) if self.gains else 0.0


@dataclass(kw_only=True)
class Settings:
    width: float = 0.2
    keep: int = 12
    limits: ClassVar[tuple[float, float]] = (0.02, 0.45)


class Ledger(Mechanism):
    name = "ledger"
    settings = Settings()

    def __init__(self) -> None:
        self.entries: defaultdict[str, Entry] = defaultdict(Entry)
        self.used: Counter[str] = Counter()

    def propose(self, view: View, count: int) -> list[Candidate]:
        def rank(name: str) -> tuple[float, int, str]:
            return (-self.entries[name].mean, self.used[name], name)

        ranked = sorted(view.free(), key=rank)
        return [c for name in ranked if (c := self._towards(view, name)) is not None][:count]

    def _towards(self, view: View, name: str) -> Candidate | None:
        knob, now = view.space[name], view.best.config[name]
        low, high = self.settings.limits
        width = min(high, max(low, self.settings.width))
        for direction in (self.entries[name].direction, -self.entries[name].direction):
            value: KnobValue = knob.at(knob.position(now) + direction * width)
            if value != now and not view.space.problems(view.config_of({name: value})):
                return Candidate(changes={name: value}, reason=f"{name}: {self.entries[name].mean:+.4f}")
        return None

    def observe(self, trial: Trial, view: View) -> None:
        base = view.trace[0].metric
        for name in trial.changes:
            self.used[name] += 1
            entry = self.entries[name]
            if trial.status != "kept":
                entry.direction *= -1
            if trial.metric is not None and base is not None:
                gain = (base - trial.metric) * (1 if view.minimize else -1)
                entry.gains = [*entry.gains, round(gain, 6)][-self.settings.keep :]

    def state(self) -> dict[str, Any]:
        return {
            "entries": {name: asdict(entry) for name, entry in sorted(self.entries.items())},
            "used": dict(self.used),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.entries.clear()
        for name, data in state["entries"].items():
            self.entries[name] = Entry(**data)
        self.used = Counter(state["used"])
