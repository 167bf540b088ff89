"""The recipe of a recorded surface: which trainings it is made of, and in which order.

Axes with their levels, knobs that stay fixed, budget, seeds and repeats, read from a JSON file.
Plain values and the checks on them; nothing is trained here (`runner.recording`), and a search
does not need it (`runner.tasks.table` reads what was recorded).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from runner.storage.journal import derive
from sandbox.mechanism import Config, Knob, KnobValue, Space

MAX_RECIPE_BYTES = 64 * 1024
MAX_POINTS = 100_000
MAX_LEVELS = 64
SEED_RULE = (
    "journal.derive(seed, point, 'record/REPEAT'); point: position in the grid, last axis first"
)


class RecipeError(ValueError):
    """A recipe that can't be used; the message says what to do."""


class Axis(BaseModel):
    """One knob of the grid: its levels in ascending order, and where a search starts."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,59}$")
    levels: tuple[int | float | str, ...] = Field(min_length=1, max_length=MAX_LEVELS)
    start: int | float | str

    @model_validator(mode="after")
    def _ordered(self) -> Axis:
        levels = self.levels
        if self.start not in levels:
            raise ValueError(f"{self.name}: the start {self.start!r} is none of its levels")
        if len(set(levels)) != len(levels):
            raise ValueError(f"{self.name}: a level is there twice")
        numbers = [v for v in levels if not isinstance(v, str)]
        if numbers and (len(numbers) != len(levels) or sorted(numbers) != numbers):
            raise ValueError(f"{self.name}: numbers alone, in ascending order")
        return self

    def knob(self) -> Knob:
        """The axis as a knob: powers of two where the levels are consecutive ones, else an
        ordered choice."""
        levels = self.levels
        if len(levels) > 1 and all(_is_power(v) for v in levels):
            low, high = int(levels[0]), int(levels[-1])
            if levels == tuple(low * 2**i for i in range(len(levels))):
                return Knob(kind="power_of_two", default=self.start, low=low, high=high, log=True)
        return Knob(kind="choice", default=self.start, choices=levels)


def _is_power(value: KnobValue) -> bool:
    return isinstance(value, int) and value > 0 and not value & (value - 1)


class Recipe(BaseModel):
    """What to record: every point once; points drawn by the seed `repeats` times, for the noise;
    then the points that look best `repeats` times as well, so that the best one is no lucky one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")
    about: str = Field(max_length=2000)
    # `runner.gpt.train`, as recorded recipes call it: it is part of their digests.
    trainer: str = Field(pattern=r"^runner\.train$")
    metric: str = Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")
    minimize: bool
    axes: tuple[Axis, ...] = Field(min_length=1, max_length=16)
    fixed: dict[str, int | float | str]
    device_batch_at_most: int = Field(ge=1, le=1024)
    budget_seconds: float = Field(ge=0.05, le=3600)
    threads: int = Field(default=1, ge=1, le=64)
    seed: int = Field(ge=0, lt=2**31)
    repeats: int = Field(ge=1, le=100)
    repeated_points: int = Field(ge=0, le=10_000)
    best_points: int = Field(ge=0, le=10_000)

    @model_validator(mode="after")
    def _sizes(self) -> Recipe:
        names = [axis.name for axis in self.axes]
        if len(set(names)) != len(names) or set(names) & set(self.fixed):
            raise ValueError("a knob is named twice, among the axes or among the fixed ones")
        if self.points > MAX_POINTS:
            raise ValueError(f"{self.points} points: at most {MAX_POINTS}")
        return self

    @property
    def points(self) -> int:
        """How many points the grid has."""
        return math.prod(len(axis.levels) for axis in self.axes)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the recipe's values."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def space(self) -> Space:
        """The grid as a search space."""
        return Space({axis.name: axis.knob() for axis in self.axes})

    def point(self, number: int) -> dict[str, KnobValue]:
        """The levels of a point; the last axis runs fastest."""
        found: dict[str, KnobValue] = {}
        for axis in reversed(self.axes):
            number, level = divmod(number, len(axis.levels))
            found[axis.name] = axis.levels[level]
        return {axis.name: found[axis.name] for axis in self.axes}

    def number(self, config: Config) -> int:
        """The point's position in the grid. KeyError or ValueError where it is none of them."""
        number = 0
        for axis in self.axes:
            number = number * len(axis.levels) + axis.levels.index(config[axis.name])
        return number

    def start(self) -> dict[str, KnobValue]:
        """Where a search begins."""
        return {axis.name: axis.start for axis in self.axes}

    def jobs(self) -> list[tuple[int, int]]:
        """(point, repeat) in the order of recording: shuffled, so that a host that slows down
        over time makes noise, never a slope. The start is always among the repeated points."""
        rng = random.Random(self.seed)  # noqa: S311 - reproducible, not secret
        others = [n for n in range(self.points) if n != self.number(self.start())]
        drawn = rng.sample(others, min(len(others), max(0, self.repeated_points - 1)))
        repeated = {self.number(self.start()), *drawn} if self.repeated_points else set()
        jobs = [(point, 0) for point in range(self.points)]
        jobs += list(itertools.product(sorted(repeated), range(1, self.repeats)))
        rng.shuffle(jobs)
        return jobs

    def best_jobs(self, metrics: Mapping[int, float]) -> list[tuple[int, int]]:
        """(point, repeat) of the second pass: the best points by their first training."""
        sign = 1 if self.minimize else -1
        best = sorted(metrics, key=lambda point: (sign * metrics[point], point))
        jobs = list(itertools.product(sorted(best[: self.best_points]), range(1, self.repeats)))
        random.Random(self.seed + 1).shuffle(jobs)  # noqa: S311
        return jobs

    def training_seed(self, point: int, repeat: int) -> int:
        """The seed of one training; see SEED_RULE."""
        return derive(self.seed, point, f"record/{repeat}")

    def knobs(self, point: int, sequence_length: int) -> dict[str, KnobValue]:
        """All knobs for the trainer: the point, what is fixed, and the device's batch, which is
        as large as the whole batch and `device_batch_at_most` allow: it costs nothing else."""
        knobs = {**self.fixed, **self.point(point)}
        rows = int(knobs["TOTAL_BATCH_SIZE"]) // sequence_length
        return {**knobs, "DEVICE_BATCH_SIZE": min(self.device_batch_at_most, rows)}


def read_recipe(path: Path) -> Recipe:
    """The recipe in a JSON file. Raises RecipeError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error}") from error
    if len(data) > MAX_RECIPE_BYTES:
        raise RecipeError(f"{path} has {len(data)} bytes: a recipe has at most {MAX_RECIPE_BYTES}")
    return recipe_of(data, str(path))


def recipe_of(data: bytes | Mapping[str, Any], where: str) -> Recipe:
    """The recipe in JSON text or parsed JSON. Raises RecipeError."""
    try:
        if isinstance(data, bytes):
            return Recipe.model_validate_json(data)
        return Recipe.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise RecipeError(f"{where} is no recipe: {place}: {first['msg']}") from None
