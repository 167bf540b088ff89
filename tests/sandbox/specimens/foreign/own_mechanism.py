"""Multi-scale bandit with its own copy of the base class, so that the file is self-contained."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Dict, List


@dataclass
class Candidate:
    changes: Dict[str, Any]
    reason: str = ""


class Mechanism(ABC):
    """Base class for all search mechanisms."""

    name: str = "base"

    @abstractmethod
    def propose(self, view, count: int) -> List[Candidate]:
        ...

    def accept(self, trial, view) -> bool:
        return trial.metric < view.best.metric


class MultiScaleBandit(Mechanism):
    name = "multi_scale_bandit"
    SCALES = (0.5, 0.8, 1.25, 2.0)

    def propose(self, view, count):
        out = []
        for name in view.free()[:count]:
            value = view.best.config[name]
            if isinstance(value, float):
                out.append(Candidate({name: value * view.random.choice(self.SCALES)}, "multi scale"))
        return out
