"""Successive halving of the knobs: every round, the half that gained least is left alone."""

from __future__ import annotations

from math import ceil

from sandbox.mechanism import Candidate, Mechanism, View

ROUND = 8


class KnobHalving(Mechanism):
    name = "knob_halving"

    def survivors(self, view: View) -> list[str]:
        """Deterministic from the trace alone: nothing has to be remembered."""
        alive = view.free()
        for end in range(ROUND, len(view.trace) + 1, ROUND):
            if len(alive) <= 2:
                break
            part = view.trace[end - ROUND : end]
            gains = {n: sum(t.status == "kept" and n in t.changes for t in part) for n in alive}
            alive = sorted(alive, key=lambda n: (-gains[n], n))[: ceil(len(alive) / 2)]
        return alive

    def propose(self, view: View, count: int) -> list[Candidate]:
        alive = self.survivors(view)
        made: list[Candidate] = []
        attempts = iter(range(30 * count))
        while len(made) < count and next(attempts, None) is not None:
            name = alive[(len(view.trace) + len(made)) % len(alive)]
            knob = view.space[name]
            value = knob.at(view.random.triangular(0, 1, knob.position(view.best.config[name])))
            changes = {name: value}
            if value == view.best.config[name] or view.space.problems(view.config_of(changes)):
                alive = alive[1:] + alive[:1]
                continue
            made.append(Candidate(changes=changes, reason=f"{len(alive)} knobs are still in"))
        return made or view.ask(count=count)
