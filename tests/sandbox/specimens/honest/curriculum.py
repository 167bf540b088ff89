"""A curriculum of knobs: first the learning rates, then regularisation, then everything else."""

from __future__ import annotations

import re

from sandbox.mechanism import Candidate, Mechanism, View

LESSONS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("learning rates", re.compile(r"_LR$")),
    ("regularisation", re.compile(r"DECAY|DROP|WARM")),
    ("everything", re.compile(r"")),
)
LENGTH = 8


class Curriculum(Mechanism):
    name = "curriculum"

    def lesson(self, view: View) -> tuple[str, list[str]]:
        number = min(len(view.trace) // LENGTH, len(LESSONS) - 1)
        for title, pattern in LESSONS[number:]:
            names = [n for n in view.free() if pattern.search(n)]
            if names:
                return title, names
        return LESSONS[-1][0], view.free()

    def propose(self, view: View, count: int) -> list[Candidate]:
        title, names = self.lesson(view)
        asked = view.ask(f"This lesson is about {title}: change only {', '.join(names)}.", count)
        kept = [c for c in asked if c.changes.keys() <= set(names)]
        while len(kept) < count:
            name = view.random.choice(names)
            knob = view.space[name]
            value = knob.at(knob.position(view.best.config[name]) + view.random.gauss(0, 0.15))
            if view.space.problems(view.config_of({name: value})):
                break
            kept.append(Candidate(changes={name: value}, reason=title))
        return kept[:count]
