"""The interface that every search mechanism is written against.

A mechanism decides *what is tried next* and *what is kept*. It is the only thing that Level 2
may write: one Python file that defines exactly one subclass of `Mechanism`, plus its test.

Everything here is plain data from the standard library, so that a mechanism can run in another
process with nothing of ours in it. This is not the search loop (`runner.loop.search`), not the
judge (`sandbox.contract`, `sandbox.replay`), and it enforces nothing: the host side checks whatever
a mechanism answers.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

KnobKind = Literal["float", "int", "choice", "power_of_two"]
KnobValue = float | int | str
Config = Mapping[str, KnobValue]

KNOB_KINDS = ("float", "int", "choice", "power_of_two")
GRID = 64  # values that are looked at of a knob that has very many
TRIAL_STATUSES = ("kept", "discarded", "failed")


@dataclass(frozen=True, kw_only=True)
class Knob:
    """One thing that may be changed: its type, bounds (both included) and default.

    `log` says that the scale is multiplicative. `choices` is for `kind == "choice"` alone; the
    other kinds have `low` and `high`. `power_of_two` values are whole powers of two.
    """

    kind: KnobKind
    default: KnobValue
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[KnobValue, ...] = ()

    def problem(self, value: object) -> str | None:
        """Why `value` is not allowed, or None. Booleans and NaN are never numbers."""
        if self.kind == "choice":
            known = any(type(value) is type(c) and value == c for c in self.choices)
            return None if known else f"{value!r} is none of {list(self.choices)}"
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return f"{value!r} is not a number"
        if isinstance(value, float) and not math.isfinite(value):
            return f"{value!r} is not finite"
        if self.kind != "float" and value != int(value):
            return f"{value!r} is not a whole number"
        if self.low is not None and value < self.low:
            return f"{value!r} is below {self.low!r}"
        if self.high is not None and value > self.high:
            return f"{value!r} is above {self.high!r}"
        if self.kind == "power_of_two" and (value < 1 or int(value) & (int(value) - 1)):
            return f"{value!r} is not a power of two"
        return None

    def position(self, value: KnobValue) -> float:
        """Where `value` lies between `low` (0.0) and `high` (1.0), on the knob's own scale."""
        if self.kind == "choice":
            return self.choices.index(value) / max(1, len(self.choices) - 1)
        low, high, scale = self._scale()
        return 0.0 if high <= low else (scale(float(value)) - low) / (high - low)

    def at(self, position: float) -> KnobValue:
        """The allowed value nearest to `position` (0.0 to 1.0; beyond that is cut off)."""
        position = min(1.0, max(0.0, position))
        if self.kind == "choice":
            return self.choices[round(position * (len(self.choices) - 1))]
        low, high, scale = self._scale()
        where = low + position * (high - low)
        if self.kind == "power_of_two":
            return int(2 ** min(math.floor(high), max(math.ceil(low), round(where))))
        number = math.exp(where) if scale is math.log else where
        bounded = min(float(self.high or 0.0), max(float(self.low or 0.0), float(f"{number:.4g}")))
        return round(bounded) if self.kind == "int" else bounded

    def near(self, value: KnobValue) -> list[KnobValue]:
        """Allowed values, the nearest to `value` first: all of them, or GRID where there are more.

        Of two equally far ones the smaller comes first; `value` itself is the first.
        """
        here = self.position(value)
        found = {self.at(i / GRID): None for i in range(GRID + 1)} | {value: None}
        return sorted(found, key=lambda v: (abs(self.position(v) - here), self.position(v)))

    def _scale(self) -> tuple[float, float, Callable[[float], float]]:
        if self.low is None or self.high is None:
            raise ValueError("this knob has no bounds")
        scale: Callable[[float], float] = float
        if self.kind == "power_of_two":
            scale = math.log2
        elif self.log and self.low > 0:
            scale = math.log
        return scale(self.low), scale(self.high), scale


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """`name` must be a multiple of `of` times `factor` (gradient accumulation, head sizes ...)."""

    name: str
    of: str
    factor: int = 1

    def problem(self, config: Config) -> str | None:
        """Why `config` breaks the rule, or None; silent where a part is missing or no number."""
        whole, part = config.get(self.name), config.get(self.of)
        if not isinstance(whole, (int, float)) or not isinstance(part, (int, float)):
            return None
        if part * self.factor <= 0 or whole % (part * self.factor):
            times = f" x {self.factor}" if self.factor != 1 else ""
            return f"{self.name}={whole!r} is not a multiple of {self.of}={part!r}{times}"
        return None


@dataclass(frozen=True)
class Space(Mapping[str, Knob]):
    """The search space: a mapping of knob name to `Knob`, with constraints between knobs."""

    knobs: Mapping[str, Knob]
    constraints: tuple[Constraint, ...] = ()

    def __getitem__(self, name: str) -> Knob:
        return self.knobs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.knobs)

    def __len__(self) -> int:
        return len(self.knobs)

    def defaults(self) -> dict[str, KnobValue]:
        """The default configuration."""
        return {name: knob.default for name, knob in self.knobs.items()}

    def problems(self, config: Config) -> list[str]:
        """Everything that is wrong with a whole configuration; an empty list means valid."""
        found = [f"unknown knob {name!r}" for name in config if name not in self.knobs]
        for name, knob in self.knobs.items():
            if name not in config:
                found.append(f"{name} is missing")
            elif problem := knob.problem(config[name]):
                found.append(f"{name}: {problem}")
        if not found:
            found = [p for c in self.constraints if (p := c.problem(config))]
        return found

    def repaired(self, config: Config, *, fixed: Collection[str] = ()) -> dict[str, KnobValue]:
        """`config` with knobs moved as little as needed, so that constraints hold; those named
        in `fixed` stay. Where that is not possible the result still has `problems`."""
        mended = dict(config)
        for rule in self.constraints:
            for partner in (rule.of, rule.name):
                if rule.problem(mended) and partner in self.knobs and partner not in fixed:
                    for value in self.knobs[partner].near(mended[partner]):
                        if not any(c.problem({**mended, partner: value}) for c in self.constraints):
                            mended[partner] = value
                            break
        return mended


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What to try next, as changes against the best configuration, and why (shown to people)."""

    changes: Mapping[str, KnobValue]
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One finished trial.

    `metric` is None if it failed; `failure` then names the class (`constraint`, `oom`, `nan`,
    `timeout`, `crash`, `no_metric`, `infrastructure`). `seconds` is wall time. `mechanism` is the
    SHA-256 of the mechanism's source that chose the trial, "" for the baseline. `measurements` is
    how many trainings (each with a seed of its own) `metric` is the mean of.
    """

    number: int
    config: Config
    changes: Config
    metric: float | None
    status: Literal["kept", "discarded", "failed"]
    failure: str = ""
    seconds: float = 0.0
    mechanism: str = ""
    measurements: int = 1


Ask = Callable[[str, int], list[Candidate]]


def _no_prior(guidance: str, count: int) -> list[Candidate]:
    raise RuntimeError("this view has no prior to ask")


@dataclass(frozen=True, kw_only=True)
class View:
    """All that a mechanism may see. Never changed by a mechanism: copies are cheap.

    `trace` holds every trial so far in order; `best` is the trial that is kept now (the first
    one is the baseline). `random` is seeded: use it, and no other source of randomness, so that
    a run can be replayed. `minimize` tells which direction of the metric is better.

    `noise` is the measured standard deviation of one training's metric under another seed (None:
    not known); `keep_sigma` is how many of them the run wants a gain to have before it is kept.
    """

    trace: tuple[Trial, ...]
    best: Trial
    space: Space
    frozen: frozenset[str] = frozenset()
    random: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311
    minimize: bool = True
    prior: Ask = field(default=_no_prior, repr=False)
    noise: float | None = None
    keep_sigma: float = 2.0

    def ask(self, guidance: str = "", count: int = 1) -> list[Candidate]:
        """Ask Level 1's prior (the language model) for up to `count` candidates.

        `guidance` is plain text for the prior ("do not touch TOTAL_BATCH_SIZE"). The answer may
        be shorter than `count`, and is not yet checked against the space.
        """
        return self.prior(guidance, count)

    def better(self, a: float, b: float) -> bool:
        """Whether metric `a` is strictly better than metric `b`."""
        return a < b if self.minimize else a > b

    def gain(self, trial: Trial) -> float | None:
        """How much better than the best one `trial` is (worse: negative); None without metrics."""
        if trial.metric is None or self.best.metric is None:
            return None
        difference = self.best.metric - trial.metric
        return difference if self.minimize else -difference

    def margin(self, trial: Trial) -> float:
        """The gain that is too easily chance: `keep_sigma` standard deviations of the trial's
        metric, which is a mean of its measurements. 0.0 where the noise is not known."""
        if self.noise is None:
            return 0.0
        return self.keep_sigma * self.noise / math.sqrt(trial.measurements)

    def config_of(self, changes: Config) -> dict[str, KnobValue]:
        """The whole configuration that `changes` against the best one gives."""
        return {**self.best.config, **changes}

    def changes_to(self, config: Config) -> dict[str, KnobValue]:
        """The changes against the best configuration that give `config`."""
        return {n: v for n, v in config.items() if v != self.best.config.get(n)}

    def fresh(self, config: Config) -> bool:
        """Whether `config` is valid and no trial had it."""
        tried = any(dict(trial.config) == dict(config) for trial in self.trace)
        return not tried and not self.space.problems(config)

    def known(self) -> list[Trial]:
        """The trials, failed ones too, whose configuration is valid: a model can learn of them."""
        return [trial for trial in self.trace if not self.space.problems(trial.config)]

    def movable(self) -> list[str]:
        """Names of the knobs that are not frozen and have more than one value."""
        return list(self._movable)

    @cached_property
    def _movable(self) -> tuple[str, ...]:  # asked for with every point
        return tuple(n for n in self.free() if self.space[n].at(0.0) != self.space[n].at(1.0))

    def places(self, config: Config) -> list[float]:
        """The positions (`Knob.position`) of the movable knobs: a point for a model."""
        return [self.space[name].position(config[name]) for name in self._movable]

    def placed(self, places: Iterable[float]) -> dict[str, KnobValue]:
        """The configuration at such a point, the other knobs as in the best one, mended so that
        constraints hold where that is possible."""
        moved = {n: self.space[n].at(p) for n, p in zip(self._movable, places, strict=True)}
        return self.space.repaired({**self.best.config, **moved}, fixed=self.frozen)

    def free(self) -> list[str]:
        """Names of the knobs that are not frozen, in the order of the space."""
        return [name for name in self.space if name not in self.frozen]


class Mechanism:
    """Base class and, as it stands, the null mechanism: plain Level 1.

    Subclass it once in a file and override what should differ. Instances are made without
    arguments. Whatever must survive a restart or a hot-load goes through `state`/`restore`.
    """

    name: str = ""

    def propose(self, view: View, count: int) -> list[Candidate]:
        """Up to `count` candidates for the next trials. Default: what the prior says."""
        return view.ask(count=count)

    def accept(self, trial: Trial, view: View) -> bool:
        """Whether `trial` becomes the new best. Default: better than the best one by more than
        `view.margin`; where the noise is not known, strictly better.

        `view` is as before the trial. Failed trials are never accepted: the host does not ask.
        """
        gain = view.gain(trial)
        return trial.metric is not None if gain is None else gain > view.margin(trial)

    def observe(self, trial: Trial, view: View) -> None:
        """See a finished trial, its status set; `view` holds it. Default: nothing."""

    def state(self) -> dict[str, Any]:
        """JSON-serialisable state, at most 64 KiB. Default: none."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state` gave. Default: nothing."""


# --- plain data for the wire (used by the worker and the host; a mechanism needs none of it) ---


def space_to_data(space: Space) -> dict[str, Any]:
    """A space as JSON-serialisable data."""
    knobs = {
        name: {
            "kind": k.kind,
            "default": k.default,
            "low": k.low,
            "high": k.high,
            "log": k.log,
            "choices": list(k.choices),
        }
        for name, k in space.items()
    }
    rules = [{"name": c.name, "of": c.of, "factor": c.factor} for c in space.constraints]
    return {"knobs": knobs, "constraints": rules}


def space_from_data(data: Mapping[str, Any]) -> Space:
    """The space that `space_to_data` wrote."""
    knobs = {
        name: Knob(
            kind=k["kind"],
            default=k["default"],
            low=k["low"],
            high=k["high"],
            log=k["log"],
            choices=tuple(k["choices"]),
        )
        for name, k in data["knobs"].items()
    }
    rules = tuple(Constraint(**c) for c in data["constraints"])
    return Space(MappingProxyType(knobs), rules)


def trial_to_data(trial: Trial) -> dict[str, Any]:
    """A trial as JSON-serialisable data."""
    return {
        "number": trial.number,
        "config": dict(trial.config),
        "changes": dict(trial.changes),
        "metric": trial.metric,
        "status": trial.status,
        "failure": trial.failure,
        "seconds": trial.seconds,
        "mechanism": trial.mechanism,
        "measurements": trial.measurements,
    }


def trial_from_data(data: Mapping[str, Any]) -> Trial:
    """The trial that `trial_to_data` wrote; its mappings are read-only."""
    frozen = {key: MappingProxyType(dict(data[key])) for key in ("config", "changes")}
    return Trial(**{**data, **frozen})
