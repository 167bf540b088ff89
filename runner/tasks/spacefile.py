"""What a person may write into a space.yaml: knobs, constraints, the metric, limits.

The models of the file and their checks, shared by the script task (where a file overrides what
was inferred) and the command task (where it is everything). Impossible combinations are refused
here, with the line. Nothing is run here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import re2
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    StrictStr,
)

from runner.tasks.base import TaskError
from runner.tasks.reading import MetricReader, compiled, higher_is_better
from runner.tasks.strictyaml import Lines
from sandbox.mechanism import Constraint, Knob, KnobKind, KnobValue, Space

NAME = r"^[A-Za-z][A-Za-z0-9_]{0,59}$"
METRIC_NAME = r"^[A-Za-z][A-Za-z0-9_./-]{0,59}$"
MAX_KNOBS = 100
MAX_CHOICES = 100
MAX_RULES = 50
LARGEST = 1e15


def _as_word(value: Any) -> Any:
    """`choices: [true, false]` means the words: a knob's value is a number or a word."""
    return str(value) if isinstance(value, bool) else value


KnobScalar = Annotated[StrictInt | StrictFloat | StrictStr, BeforeValidator(_as_word)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")]
Number = Annotated[StrictInt | StrictFloat, Field(ge=-LARGEST, le=LARGEST)]


class Part(BaseModel):
    """Strict base of the file's parts: an unknown key is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class KnobPart(Part):
    """One knob. What is left out is inferred (script) or has a default."""

    kind: KnobKind | None = None
    low: Number | None = None
    high: Number | None = None
    log: bool | None = None
    choices: list[KnobScalar] = Field(default=[], max_length=MAX_CHOICES)
    default: KnobScalar | None = None


class ConstraintPart(Part):
    """`name` must be a multiple of `multiple_of` times `factor`."""

    name: str
    multiple_of: str
    factor: StrictInt = Field(default=1, ge=1, le=2**53)


class MetricPart(Part):
    """How the metric is found in what a trial prints: a line `NAME: NUMBER`, or a pattern (RE2)
    with one group. `take` says what to do where it is printed more than once."""

    name: str = Field(pattern=METRIC_NAME)
    pattern: str | None = Field(default=None, max_length=500)
    take: Literal["once", "last"] = "once"

    def reader(self) -> MetricReader:
        """What finds it in the output of one trial."""
        return MetricReader(name=self.name, pattern=self.pattern, take_last=self.take == "last")


class SpaceFile(Part):
    """What both tasks know."""

    metric: MetricPart | Annotated[str, Field(pattern=METRIC_NAME)] | None = None
    minimize: bool | None = None
    deadline_seconds: Number | None = Field(default=None, ge=1, le=86_400)
    share: list[str] = Field(default=[], max_length=20)
    environment: dict[Variable, str] = Field(default={}, max_length=50)
    knobs: dict[str, KnobPart] = Field(default={}, max_length=MAX_KNOBS)
    constraints: list[ConstraintPart] = Field(default=[], max_length=MAX_RULES)


def metric_of(part: MetricPart | str | None, default: str) -> MetricPart:
    """The metric that a file names, or the default one."""
    if isinstance(part, MetricPart):
        return part
    return MetricPart(name=part or default)


def check_pattern(metric: MetricPart, lines: Lines) -> None:
    """Raises TaskError where the metric's pattern can't be used."""
    if metric.pattern is None:
        return
    try:
        groups = compiled(metric.pattern).groups
    except re2.error as error:
        raise lines.error(("metric", "pattern"), f"no RE2 pattern: {_told(error)}") from None
    if groups != 1:
        raise lines.error(("metric", "pattern"), f"{groups} groups: put (...) around the number")


def minimized(metric: MetricPart, given: bool | None, lines: Lines | None, *, say: str) -> bool:
    """Whether the metric is to be low: what was `given`, else it is. Raises TaskError where its
    name says the opposite and nobody said; `say` is how to say it."""
    if given is None and higher_is_better(metric.name):
        why = f"is a higher {metric.name} better? {say}; else write `minimize: true` there"
        raise TaskError(why) if lines is None else lines.error(("metric",), why)
    return given is not False


def _told(error: Exception) -> str:
    first = error.args[0] if error.args else error
    return first.decode(errors="replace") if isinstance(first, bytes) else str(first)


def knob_of(
    name: str,
    part: KnobPart,
    known: Knob | None,
    lines: Lines,
    *,
    fixed_default: KnobValue | None = None,
) -> Knob:
    """The knob that `part` describes, over what is `known` of it; `fixed_default` is the default
    whatever the part says. Raises TaskError."""

    def wrong(field: str, why: str) -> TaskError:
        return lines.error(("knobs", name, field), why)

    if not re.match(NAME, name):
        raise lines.error(
            ("knobs", name), "a name has letters, digits and _ and begins with a letter"
        )
    kind = part.kind or ("choice" if part.choices else known.kind if known else None)
    if kind is None:
        kind = "int" if isinstance(part.low, int) and isinstance(part.high, int) else "float"
    if kind == "choice":
        return _choice(part, known, fixed_default, wrong)
    if part.choices:
        raise wrong("choices", f"only a choice has them, and this is of kind {kind}")
    low = part.low if part.low is not None else known.low if known else None
    high = part.high if part.high is not None else known.high if known else None
    if low is None or high is None:
        raise wrong("low" if low is None else "high", f"a knob of kind {kind} needs low and high")
    if low >= high:
        why = f"is above high, {high:g}" if low > high else "is high as well: nothing to search"
        raise wrong("low", f"{low:g} {why}")
    log = kind == "power_of_two" if part.log is None and known is None else part.log
    log = bool(known.log if log is None and known else log)
    if log and low <= 0:
        raise wrong("log" if part.log else "low", f"a log scale begins above 0, not at {low:g}")
    for field, bound in (("low", low), ("high", high)):
        if kind != "float" and bound != int(bound):
            raise wrong(field, f"{bound!r} is no whole number")
    if kind == "power_of_two" and not _has_power(low, high):
        raise wrong("low", f"there is no power of two from {low:g} to {high:g}")
    middle = Knob(kind=kind, default=0, low=low, high=high, log=log)
    default = fixed_default if fixed_default is not None else part.default
    if default is None:
        default = known.default if known else middle.at(0.5)
    if problem := middle.problem(default):
        given = [f for f in ("default", "low", "high", "kind") if getattr(part, f) is not None]
        raise wrong(given[0] if given else "low", f"the default {problem}")
    return Knob(kind=kind, default=default, low=low, high=high, log=log)


def _has_power(low: float, high: float) -> bool:
    return high >= 1 and 2 ** (int(high).bit_length() - 1) >= low


def _choice(
    part: KnobPart,
    known: Knob | None,
    fixed_default: KnobValue | None,
    wrong: Callable[[str, str], TaskError],
) -> Knob:
    for field in ("low", "high", "log"):
        if getattr(part, field) is not None:
            raise wrong(field, "a choice has no bounds and no scale")
    choices: tuple[KnobValue, ...] = tuple(part.choices) or (known.choices if known else ())
    if len(choices) < 2:
        raise wrong("choices", "name at least two")
    if len({(type(c), c) for c in choices}) < len(choices):
        raise wrong("choices", "one of them is there twice")
    default = fixed_default if fixed_default is not None else part.default
    if default is None:
        default = known.default if known else choices[0]
    knob = Knob(kind="choice", default=default, choices=choices)
    if problem := knob.problem(default):
        raise wrong("default" if part.default is not None else "choices", f"the default {problem}")
    return knob


def constraints_of(
    parts: list[ConstraintPart], knobs: Mapping[str, Knob], lines: Lines
) -> tuple[Constraint, ...]:
    """The constraints that a file names. Raises TaskError."""
    found = []
    for number, part in enumerate(parts):
        for field, name in (("name", part.name), ("multiple_of", part.multiple_of)):
            knob = knobs.get(name)
            if knob is None or any(isinstance(choice, str) for choice in knob.choices):
                why = "is no knob here" if knob is None else "is a word and no number"
                raise lines.error(("constraints", number, field), f"{name!r} {why}")
        found.append(Constraint(name=part.name, of=part.multiple_of, factor=part.factor))
    return tuple(found)


def check_space(space: Space, lines: Lines) -> None:
    """Raises TaskError where the defaults break a constraint: there would be no baseline."""
    if not space:
        raise lines.error(("knobs",), "there is no knob")
    for number, rule in enumerate(space.constraints):
        if problem := rule.problem(space.defaults()):
            raise lines.error(("constraints", number), f"the defaults break it: {problem}")
