"""A trust region that doubles after a gain and halves after three misses (TuRBO's bookkeeping)."""

from __future__ import annotations

from typing import TypedDict, cast

from sandbox.mechanism import Candidate, KnobValue, Mechanism, Trial, View


class Memory(TypedDict):
    length: float
    hits: int
    misses: int


class TrustRegion(Mechanism):
    name = "trust_region"
    LENGTHS = (0.02, 0.8)

    def __init__(self) -> None:
        self.memory: Memory = {"length": 0.3, "hits": 0, "misses": 0}

    def propose(self, view: View, count: int) -> list[Candidate]:
        out: list[Candidate] = []
        rng = view.random
        half = self.memory["length"] / 2
        for _ in range(25 * count):
            perturbed = [n for n in view.free() if rng.random() < min(1.0, 3 / len(view.free()))]
            changes: dict[str, KnobValue] = {
                n: view.space[n].at(view.space[n].position(view.best.config[n]) + rng.uniform(-half, half))
                for n in perturbed
            }
            changes = {n: v for n, v in changes.items() if v != view.best.config[n]}
            if changes and not view.space.problems(view.config_of(changes)):
                out.append(Candidate(changes=changes, reason=f"within {half:.3f} of the best"))
                if len(out) >= count:
                    break
        else:
            return out or view.ask(count=count)
        return out

    def observe(self, trial: Trial, view: View) -> None:
        low, high = self.LENGTHS
        memory = self.memory
        if trial.status == "kept":
            memory["hits"], memory["misses"] = memory["hits"] + 1, 0
            memory["length"] = min(high, memory["length"] * 2)
        else:
            memory["misses"] += 1
            if memory["misses"] % 3 == 0:
                memory["length"] = max(low, memory["length"] / 2)

    def state(self) -> dict[str, object]:
        return {**self.memory}

    def restore(self, state: dict[str, object]) -> None:
        self.memory = cast(Memory, {**self.memory, **state})
