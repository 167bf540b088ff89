"""Level 1: what to try next. The history as a compact table, and the two priors.

`HabitPrior` is a script that stands in for a language model offline and says so; `OpenAIPrior`
asks one. Neither checks its candidates against the space, keeps anything between two questions,
or decides what is kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    StrictStr,
    field_validator,
)

from runner.interfaces import EarlierRun
from runner.levels.diagnosis import bases, movable
from runner.llm.prompting import Prompts
from sandbox.mechanism import Candidate, Config, Knob, KnobValue, Space, Trial, View

if TYPE_CHECKING:  # the scripted prior must not pay for loading openai
    from runner.llm.client import LanguageModel

MAX_CHANGES = 3
MAX_CANDIDATES = 16
REPEAT_SHARE = 0.3
SECOND_KNOB_SHARE = 0.15
FAVOURITES = 6
HISTORY_CHARACTERS = 80_000  # about 1,000 trials
EARLIER_CHARACTERS = 24_000  # for all earlier runs together

_AVOID = re.compile(r"do not touch ([A-Za-z0-9_]+)", re.IGNORECASE)
_EXPLORE = re.compile(r"\b[Ee]xplore ([A-Z0-9_]+)\b")
_OTHER_WAY = re.compile(r"\b([A-Z0-9_]+) (up|down) failed")


class HabitPrior:
    """The documented habits of language models in this search, as a script.

    It raises the batch first, repeats itself, keeps to a few favourite knobs and seldom tries the
    others; it follows "do not touch X" and "explore X". Its only randomness is the view's.
    """

    label = "habit (scripted, not a language model)"

    def ask(self, view: View, guidance: str, count: int) -> list[Candidate]:
        """Up to `count` candidates; none where guidance and freezes leave no knob."""
        avoid = {name.upper() for name in _AVOID.findall(guidance)} | view.frozen
        names = [name for name in movable(view.space) if name not in avoid]
        if not names:
            return []
        explore = [name for name in names if name in set(_EXPLORE.findall(guidance))]
        turned = {name: way for name, way in _OTHER_WAY.findall(guidance) if name in names}
        return [
            self._candidate(view, names, explore, turned, len(view.trace) - 1 + i)
            for i in range(count)
        ]

    def _candidate(
        self, view: View, names: list[str], explore: list[str], turned: dict[str, str], done: int
    ) -> Candidate:
        favourites = sorted(names, key=_fondness)[:FAVOURITES]
        earlier = [t for t in view.trace[-6:] if t.number and _repeatable(t, view, names)]
        if explore and view.random.random() < 0.7:
            picked, reason = [view.random.choice(explore)], "guidance asks to explore it"
        elif done < 2 and "BATCH" in favourites[0]:
            picked, reason = [favourites[0]], "a larger batch gives less noisy gradients"
        elif earlier and view.random.random() < REPEAT_SHARE:
            changes = dict(view.random.choice(earlier).changes)
            return Candidate(changes=changes, reason="this looked promising: once more")
        else:
            wanted = 2 if view.random.random() < SECOND_KNOB_SHARE else 1
            picked = view.random.sample(favourites, min(wanted, len(favourites)))
            reason = "tuning what usually matters"
        made = {name: _step(view, name, turned.get(name, "")) for name in picked}
        return Candidate(changes=made, reason=reason)


def _fondness(name: str) -> tuple[int, str]:
    """Batch first, then learning rates, then the rest; the device's batch is left alone."""
    order = ("TOTAL_BATCH", "MATRIX_LR", "LEARNING_RATE", "LR", "DECAY", "BATCH")
    return next((i for i, part in enumerate(order) if part in name), len(order)), name


def _repeatable(trial: Trial, view: View, names: list[str]) -> bool:
    valid = all(n in names and view.space[n].problem(v) is None for n, v in trial.changes.items())
    return bool(trial.changes) and valid


def _step(view: View, name: str, failed_way: str) -> KnobValue:
    """A step of usual size: batches up, the rest either way; at least to the next value."""
    knob, old = view.space[name], view.best.config[name]
    if knob.kind == "choice":
        return view.random.choice([c for c in knob.choices if c != old])
    up = view.random.random() < (0.85 if "BATCH" in name else 0.5)
    if failed_way:
        up = failed_way == "down"
    new = _moved(knob, old, up, view.random.uniform(0.04, 0.2))
    return _moved(knob, old, not up, 0.1) if new == old else new


def _moved(knob: Knob, old: KnobValue, up: bool, size: float) -> KnobValue:
    for factor in (1, 2, 4, 8):
        new = knob.at(knob.position(old) + (size if up else -size) * factor)
        if new != old:
            return new
    return old


# --- the language model ----------------------------------------------------------------------


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ChangeAnswer(_Strict):
    """One knob and its new value."""

    name: str = Field(max_length=100)
    value: StrictInt | StrictFloat | Annotated[StrictStr, Field(max_length=200)]


class CandidateAnswer(_Strict):
    """One candidate: one to three changes against the best configuration."""

    reason: str = Field(max_length=2000)
    changes: list[ChangeAnswer] = Field(min_length=1, max_length=MAX_CHANGES)

    @field_validator("changes")
    @classmethod
    def _each_knob_once(cls, changes: list[ChangeAnswer]) -> list[ChangeAnswer]:
        if len({change.name for change in changes}) < len(changes):
            raise ValueError("a knob is changed twice in one candidate")
        return changes


class CandidatesAnswer(_Strict):
    """What Level 1 must answer."""

    candidates: list[CandidateAnswer] = Field(min_length=1, max_length=MAX_CANDIDATES)


class OpenAIPrior:
    """Any OpenAI-compatible language model, shown the whole history with values and deltas."""

    def __init__(
        self, llm: LanguageModel, *, description: str, metric: str, prompts: Prompts | None = None
    ) -> None:
        self.llm = llm
        self.prompts = prompts or Prompts()
        self.label = f"{llm.model} (prompts {self.prompts.digest[:12]})"
        self.description = description
        self.metric = metric
        self.earlier_runs: tuple[EarlierRun, ...] = ()  # set by `runner.settings`, once

    def ask(self, view: View, guidance: str, count: int) -> list[Candidate]:
        """Up to `count` candidates. Raises PriorError, BudgetExceeded."""
        prompt = self.prompts.fill(
            "level1.md",
            task=self.description,
            metric=self.metric,
            better="lower" if view.minimize else "higher",
            space=space_table(view.space, view.best.config, view.frozen),
            history=history_table(view.trace, self.metric),
            earlier_runs=earlier_table(self.earlier_runs),
            guidance=guidance or "none",
            count=str(count),
            max_changes=str(MAX_CHANGES),
        )
        answer = self.llm.ask(prompt, schema=CandidatesAnswer, purpose="level 1")
        return [_to_candidate(c, view.space) for c in answer.value.candidates[:count]]


def _to_candidate(answer: CandidateAnswer, space: Space) -> Candidate:
    changes: dict[str, KnobValue] = {}
    for change in answer.changes:
        knob, value = space.get(change.name), change.value
        if knob is not None and knob.kind in {"int", "power_of_two"} and isinstance(value, float):
            value = int(value) if value.is_integer() else value  # some write 16384 as 16384.0
        changes[change.name] = value
    return Candidate(changes=changes, reason=answer.reason)


def space_table(space: Space, best: Config, frozen: frozenset[str]) -> str:
    """The space with the best values, one knob a line, then the constraints."""
    rows = ["knob | type | allowed | default | best now | free"]
    for name, knob in space.items():
        allowed = (
            ", ".join(map(repr, knob.choices))
            if knob.kind == "choice"
            else f"{knob.low:g} to {knob.high:g}{' (log)' if knob.log else ''}"
        )
        locked = knob.at(0.0) == knob.at(1.0)
        free = "locked" if locked else "FROZEN" if name in frozen else "yes"
        rows.append(
            f"{name} | {knob.kind} | {allowed} | {knob.default!r} | {best[name]!r} | {free}"
        )
    rows += [
        f"constraint: {c.name} must be a multiple of {c.of} x {c.factor}" for c in space.constraints
    ]
    return "\n".join(rows)


def history_table(
    trace: tuple[Trial, ...], metric: str, *, limit_characters: int = HISTORY_CHARACTERS
) -> str:
    """Every trial: status, metric, delta to the best of its time, changes as old -> new.

    Over the limit, the oldest trials that were not kept are left out, and it says how many.
    """
    rows: list[tuple[bool, str]] = []
    best: float | None = None
    for trial, base in zip(trace, bases(trace), strict=True):
        value = trial.failure if trial.metric is None else f"{trial.metric:.5f}"
        delta = "" if trial.metric is None or best is None else f"{trial.metric - best:+.5f}"
        changes = ", ".join(f"{n} {base.get(n)!r} -> {v!r}" for n, v in trial.changes.items())
        text = changes or ("baseline" if trial.number == 0 else "none")
        row = f"{trial.number} | {trial.status} | {value} | {delta} | {text}"
        rows.append((trial.status == "kept", row))
        if trial.status == "kept":
            best = trial.metric
    over = sum(len(row) + 1 for _, row in rows) - limit_characters
    shown, left_out = [], 0
    for kept, row in rows:
        if over > 0 and not kept:
            over, left_out = over - len(row) - 1, left_out + 1
        else:
            shown.append(row)
    head = [f"trial | status | {metric} | delta | changes"]
    if left_out:
        head.append(f"({left_out} older trials that were not kept are left out)")
    return "\n".join(head + shown)


def earlier_table(runs: Sequence[EarlierRun]) -> str:
    """What is known of other runs of the same task: a heading and a history for each."""
    if not runs:
        return "none"
    limit = EARLIER_CHARACTERS // len(runs)
    parts = []
    for run in runs:
        host = "the same host" if run.same_host else f"ANOTHER HOST ({run.host})"
        noise = "not known" if run.sigma is None else f"{run.sigma:.5f}"
        parts.append(
            f"Run {run.run_id[:8]} on {host}, started {run.started_at[:10]}, "
            f"noise (sigma) {noise}, {len(run.trials)} of {run.trials_in_all} trials:\n"
            + history_table(run.trials, run.metric, limit_characters=limit)
        )
    return "\n\n".join(parts)
