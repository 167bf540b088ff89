"""Level 1.5: freezes knobs that only cost trials, frees them again, guides the prior.

Called every few trials with what was decided before. The caps are for whoever steers, scripts and
language models alike: at most MAX_FREEZES new freezes at a time, and at least MIN_FREE knobs that
can move stay free. It trains nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from runner.interfaces import PriorError, Steering
from runner.levels.diagnosis import Moves, movable, moves_of
from runner.levels.strategy import history_table, space_table
from runner.llm.answers import harmless, shown
from runner.llm.prompting import Prompts
from sandbox.mechanism import Space, View

if TYPE_CHECKING:
    from runner.llm.client import LanguageModel

MAX_FREEZES = 5
MIN_FREE = 4
MIN_FAILURES = 3
WINDOW_TRIALS = 15
STUCK_TRIALS = 10


def capped(space: Space, frozen: frozenset[str], wanted: Iterable[str]) -> frozenset[str]:
    """`frozen` and as many of `wanted`, in their order, as the caps allow."""
    free = [name for name in movable(space) if name not in frozen]
    new: list[str] = []
    for name in dict.fromkeys(wanted):
        if name in free and len(new) < MAX_FREEZES and len(free) - len(new) > MIN_FREE:
            new.append(name)
    return frozen | frozenset(new)


class ScriptedSteering:
    """Rules instead of a language model; the same trace always gives the same answer."""

    label = "rules (scripted, not a language model)"

    def __call__(self, view: View, steering: Steering) -> Steering:
        """The steering for the next trials."""
        reasons: list[str] = []
        frozen = steering.frozen & frozenset(view.space)
        idle = len(view.trace) - 1 - _index_of_best(view)
        if frozen and idle >= STUCK_TRIALS:
            reasons.append(f"unfroze {', '.join(sorted(frozen))}: no progress for {idle} trials")
            frozen = frozenset()
        moves = moves_of(view.trace, view.space)
        recent = moves_of(view.trace, view.space, last=WINDOW_TRIALS)
        hopeless = [name for name in movable(view.space) if _hopeless(recent, name)]
        after = capped(view.space, frozen, [] if idle >= STUCK_TRIALS else hopeless)
        reasons += [
            f"froze {name}: its last {recent.failures[name]} trials, up and down, gained nothing"
            for name in sorted(after - frozen)
        ]
        guidance = _guidance(view, moves, hopeless, after)
        return Steering(frozen=after, guidance=guidance, reasons=tuple(reasons))


def _index_of_best(view: View) -> int:
    return next(i for i, t in enumerate(view.trace) if t.number == view.best.number)


def _hopeless(moves: Moves, name: str) -> bool:
    """Tried often and in more than one direction: one direction alone proves nothing."""
    enough = moves.failures[name] >= MIN_FAILURES and not moves.kept[name]
    return enough and len(moves.directions.get(name, ())) > 1


def _guidance(view: View, moves: Moves, hopeless: list[str], frozen: frozenset[str]) -> str:
    free = [name for name in movable(view.space) if name not in frozen]
    untried = [name for name in free if not moves.tried[name]][:3]
    refused = [name for name in free if name in hopeless]
    parts = [f"Explore {name}: it was never tried." for name in untried]
    parts += [f"Do not touch {name}: it gained nothing either way." for name in refused]
    for name in free:
        directions = moves.directions.get(name, frozenset())
        if moves.failures[name] >= 2 and not moves.kept[name] and len(directions) == 1:
            (seen,) = directions
            parts.append(f"{name} {seen} failed {moves.failures[name]} times: try the other way.")
    return " ".join(parts)


class SteeringAnswer(BaseModel):
    """What a language model must answer at Level 1.5."""

    model_config = ConfigDict(extra="forbid")
    freeze: list[str] = Field(max_length=40)
    unfreeze: list[str] = Field(max_length=40)
    guidance: str = Field(max_length=3000)
    reasons: list[str] = Field(max_length=20)


class OpenAISteering:
    """A language model instead of rules, under the same caps."""

    def __init__(self, llm: LanguageModel, *, metric: str, prompts: Prompts | None = None) -> None:
        self.llm = llm
        self.prompts = prompts or Prompts()
        self.metric = metric
        self.label = f"{llm.model} (prompts {self.prompts.digest[:12]})"

    def __call__(self, view: View, steering: Steering) -> Steering:
        """The steering for the next trials. Raises PriorError, BudgetExceeded."""
        prompt = self.prompts.fill(
            "level15.md",
            better="Lower" if view.minimize else "Higher",
            metric=self.metric,
            space=space_table(view.space, view.best.config, steering.frozen),
            history=history_table(view.trace, self.metric),
            frozen=", ".join(sorted(steering.frozen)) or "nothing",
            guidance=steering.guidance or "none",
            max_freezes=str(MAX_FREEZES),
            min_free=str(MIN_FREE),
        )
        answer = self.llm.ask(prompt, schema=SteeringAnswer, purpose="level 1.5").value
        unknown = sorted({*answer.freeze, *answer.unfreeze} - set(view.space))
        if unknown:
            told = shown(str(unknown[:10]))
            raise PriorError(f"level 1.5 names knobs that do not exist: {told}")
        kept = steering.frozen - frozenset(answer.unfreeze)
        frozen = capped(view.space, kept, answer.freeze)
        left_out = sorted(set(answer.freeze) - frozen)
        notes = (f"the caps left {', '.join(left_out)} free",) if left_out else ()
        return Steering(
            frozen=frozen,
            guidance=harmless(answer.guidance),
            reasons=(*map(harmless, answer.reasons), *notes),
        )
