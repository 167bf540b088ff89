"""Notices plateaus by the slope of the best-so-far curve and then widens the steps."""

from __future__ import annotations

import enum
from itertools import accumulate, islice

from sandbox.mechanism import Candidate, Mechanism, View


class Phase(enum.Enum):
    CLIMBING = enum.auto()
    PLATEAU = enum.auto()
    STUCK = enum.auto()

    @property
    def width(self) -> float:
        return {Phase.CLIMBING: 0.05, Phase.PLATEAU: 0.2, Phase.STUCK: 0.5}[self]


class PlateauDetector(Mechanism):
    name = "plateau_detector"
    window = 6
    tolerance = 0.002

    def phase(self, view: View) -> Phase:
        metrics = [t.metric for t in view.trace if t.metric is not None]
        curve = list(accumulate(metrics, min if view.minimize else max))
        if len(curve) <= self.window:
            return Phase.CLIMBING
        recent = abs(curve[-1] - curve[-self.window]) / (abs(curve[-1]) or 1.0)
        if recent > self.tolerance:
            return Phase.CLIMBING
        return Phase.STUCK if recent == 0 else Phase.PLATEAU

    def propose(self, view: View, count: int) -> list[Candidate]:
        phase = self.phase(view)
        if phase is Phase.CLIMBING:
            return view.ask(count=count)
        return list(islice(self._wide(view, phase), count)) or view.ask(count=count)

    def _wide(self, view: View, phase: Phase):
        for _ in range(50):
            names = view.random.sample(view.free(), 2)
            changes = {}
            for name in names:
                knob = view.space[name]
                shift = view.random.uniform(-phase.width, phase.width)
                changes[name] = knob.at(knob.position(view.best.config[name]) + shift)
            if not view.space.problems(view.config_of(changes)):
                yield Candidate(changes=changes, reason=f"{phase.name.lower()}: wider steps")
