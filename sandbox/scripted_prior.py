"""A scripted stand-in for Level 1's prior, for judging mechanisms: deterministic, with bad habits.

It raises the batch first, repeats itself and sometimes leaves the bounds, as language models were
seen to do; it listens to guidance: other guidance, another choice. It is not a language model, and
no good at search.
"""

from __future__ import annotations

import random
import re
from enum import StrEnum

from sandbox.mechanism import Candidate, Knob, KnobValue, View

LABEL = "scripted (not a language model)"
AVOIDING = re.compile(
    r"\b(not|don't|no|avoid|without|never|except|exclude|instead|tabu|skip|other than|unlike)\b",
    re.IGNORECASE,
)


class Mood(StrEnum):
    """What kind of answers a prior gives."""

    HABIT = "habit"
    EMPTY = "empty"  # nothing at all
    WILD = "wild"  # unknown knobs and values of another type


class ScriptedPrior:
    """Answers the asks of one `propose`; `answers` keeps all of them.

    `recorded` is what a prior really answered here: then the first plain ask gets that.
    """

    def __init__(
        self,
        view: View,
        *,
        seed: str,
        mood: Mood = Mood.HABIT,
        recorded: Candidate | None = None,
    ) -> None:
        self.answers: list[Candidate] = []
        self.asked = 0
        self._view = view
        self._seed = f"{seed}/{len(view.trace)}"
        self._mood = mood
        self._recorded = recorded

    def __call__(self, guidance: str, count: int) -> list[Candidate]:
        """Up to `count` candidates."""
        self.asked += 1
        if self._mood is Mood.EMPTY:
            return []
        guidance = " ".join(guidance.split())
        given = [self._one(guidance, self.asked, index) for index in range(count)]
        self.answers.extend(given)
        return given

    def null_answer(self, count: int) -> list[Candidate]:
        """What the null mechanism would get here: the first answer without guidance."""
        if self._mood is Mood.EMPTY:
            return []
        return [self._one("", 1, index) for index in range(count)]

    def _one(self, guidance: str, call: int, index: int) -> Candidate:
        if self._mood is Mood.WILD:
            return Candidate(changes={"NO_SUCH_KNOB": 1, self._view.free()[0]: "wild"}, reason="?")
        plain = self._recorded if index == 0 else None
        if plain is None:
            rng = random.Random(f"{self._seed}/{1}/{index}")  # noqa: S311
            plain = self._habit(rng, self._view.free())
        if not guidance and call == 1:
            return plain
        for attempt in range(8):
            rng = random.Random(f"{self._seed}/{guidance}/{call}/{index}/{attempt}")  # noqa: S311
            other = self._habit(rng, self._wanted(guidance), bad=False)
            if not guidance or self._differs(other, plain):
                return other
        return other

    def _differs(self, one: Candidate, two: Candidate) -> bool:
        return self._view.config_of(one.changes) != self._view.config_of(two.changes)

    def _wanted(self, guidance: str) -> list[str]:
        """The knobs that guidance leaves or asks for; all free ones if it names none."""
        free = self._view.free()
        named = [name for name in free if name in guidance]
        if not named:
            return free
        if AVOIDING.search(guidance):
            return [name for name in free if name not in named] or free
        return named

    def _habit(self, rng: random.Random, knobs: list[str], *, bad: bool = True) -> Candidate:
        draw = rng.random()
        past = [t for t in self._view.trace[-6:] if t.changes and set(t.changes) <= set(knobs)]
        batch = next((n for n in knobs if self._view.space[n].kind == "power_of_two"), knobs[0])
        if draw < 0.22 and past:
            return Candidate(changes=dict(rng.choice(past).changes), reason="as before")
        if draw < 0.5:
            name = "TOTAL_BATCH_SIZE" if "TOTAL_BATCH_SIZE" in knobs else batch
            return self._move(name, rng.choice((0.125, 0.25, -0.25)), "a larger batch is better")
        if draw > 0.92 and bad:
            return self._beyond(rng, knobs)
        first = rng.choice(knobs)
        moved = self._move(first, rng.uniform(-0.3, 0.3), f"try another {first}")
        if draw > 0.8 and len(knobs) > 1:
            second = rng.choice([n for n in knobs if n != first])
            more = self._move(second, rng.uniform(-0.3, 0.3), "")
            moved = Candidate(changes={**moved.changes, **more.changes}, reason=moved.reason)
        return moved

    def _move(self, name: str, step: float, reason: str) -> Candidate:
        knob, now = self._view.space[name], self._view.best.config[name]
        return Candidate(changes={name: _moved(knob, now, step)}, reason=reason)

    def _beyond(self, rng: random.Random, knobs: list[str]) -> Candidate:
        """A value above its bound, if any knob has one."""
        bounded = [n for n in knobs if self._view.space[n].high is not None]
        if not bounded:
            return self._move(knobs[0], 0.5, "more")
        name = rng.choice(bounded)
        knob = self._view.space[name]
        value = (knob.high or 0.0) * 2
        shown: KnobValue = value if knob.kind == "float" else int(value)
        return Candidate(changes={name: shown}, reason="much more")


def _moved(knob: Knob, now: KnobValue, step: float) -> KnobValue:
    """The allowed value a `step` away on the knob's scale; another one than now where there is."""
    if knob.kind == "choice":
        others = [c for c in knob.choices if c != now]
        return others[int(abs(step) * 1000) % len(others)] if others else now
    for factor in (1, -1, 2, -2, 4, -4):
        value = knob.at(knob.position(now) + step * factor)
        if value != now:
            return value
    return now
