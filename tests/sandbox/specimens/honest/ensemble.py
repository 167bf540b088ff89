"""An ensemble of three little strategies with credit: who proposed what was kept gets more turns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol, runtime_checkable

from sandbox.mechanism import Candidate, Mechanism, Trial, View


@runtime_checkable
class Strategy(Protocol):
    label: ClassVar[str]

    def suggest(self, view: View) -> Candidate | None: ...


class Base(ABC):
    label: ClassVar[str] = "base"

    @abstractmethod
    def values(self, view: View, name: str) -> list[float]:
        """Positions to try for a knob."""

    def suggest(self, view: View) -> Candidate | None:
        names = view.free()
        view.random.shuffle(names)
        for name in names:
            knob = view.space[name]
            for position in self.values(view, name):
                value = knob.at(position)
                if value == view.best.config[name]:
                    continue
                if not view.space.problems(view.config_of({name: value})):
                    return Candidate(changes={name: value}, reason=f"{self.label}: {name}")
        return None


class Near(Base):
    label = "near"

    def values(self, view: View, name: str) -> list[float]:
        here = view.space[name].position(view.best.config[name])
        return [here + d for d in (0.04, -0.04)]


class Far(Base):
    label = "far"

    def values(self, view: View, name: str) -> list[float]:
        here = view.space[name].position(view.best.config[name])
        return [1.0 - here, 0.5]


class Ends(Base):
    label = "ends"

    def values(self, view: View, name: str) -> list[float]:
        return [0.1, 0.9]


class Ensemble(Mechanism):
    name = "ensemble"

    def __init__(self) -> None:
        self.members: list[Strategy] = [Near(), Far(), Ends()]
        self.credit = {m.label: 1.0 for m in self.members}

    def propose(self, view: View, count: int) -> list[Candidate]:
        weights = [self.credit[m.label] for m in self.members]
        out: list[Candidate] = []
        for member in view.random.choices(self.members, weights, k=count):
            if isinstance(member, Strategy) and (candidate := member.suggest(view)) is not None:
                out.append(candidate)
        return out or view.ask(count=count)

    def observe(self, trial: Trial, view: View) -> None:
        # Credit fades for everybody, and whose kind of step was kept gets some.
        for label in self.credit:
            self.credit[label] = max(0.2, 0.95 * self.credit[label])
        if trial.status == "kept" and len(trial.changes) == 1:
            self.credit["near"] += 0.5

    def state(self) -> dict:
        return {"credit": self.credit}

    def restore(self, state: dict) -> None:
        self.credit.update(state["credit"])
