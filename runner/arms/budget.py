"""A task under a budget: counts and keeps every training, and stops an arm that has had its share.

The same training (configuration and seed) is never done twice in one run, not even by a run that
was killed and started again: its stored outcome is given. The repeats of the baseline, known by
their seeds, cost nothing; all arms of one repeat share them, whichever comes first. What an arm
makes of its trainings is its own business.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runner.arms.record_schema import check_trainings
from runner.arms.spec import ArmsError
from runner.interfaces import Outcome, Task
from runner.loop.trainings import sane
from sandbox.mechanism import Config

MAX_MESSAGE = 2000


class Spent(BaseException):
    """The arm has had all its trainings. No Exception, so that nothing takes it for an error."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training: what was trained, and what came out."""

    config: Mapping[str, Any]
    seed: int
    metric: float | None
    failure: str
    seconds: float
    message: str = ""

    @classmethod
    def of(cls, config: Config, seed: int, outcome: Outcome) -> Training:
        """The training that gave `outcome`."""
        return cls(
            config=dict(config),
            seed=seed,
            metric=outcome.metric,
            failure=outcome.failure,
            seconds=outcome.seconds,
            message=outcome.message[:MAX_MESSAGE],
        )

    @property
    def key(self) -> str:
        """What makes it the same training as another."""
        return f"{self.seed}/{json.dumps(self.config, sort_keys=True)}"


class Book:
    """Trainings in a file, one JSON line each, on the disk before they are used. A line that was
    cut short is dropped: its training is done again."""

    def __init__(self, path: Path, *, remove: Path | None = None) -> None:
        """Open or create. Raises ArmsError where the file is broken: it names what to `remove` (by
        default the file) so that the same command begins that anew."""
        self.path = path
        self.trainings: list[Training] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        try:
            rows = [json.loads(line) for line in whole.splitlines()]
            check_trainings(rows)
        except (ValueError, RecursionError) as error:
            raise ArmsError(f"{path} is broken ({error}): remove {remove or path}") from None
        self.trainings = [Training(**row) for row in rows]
        if len(whole) < len(data):
            os.truncate(path, len(whole))
        self._known = {t.key: t for t in self.trainings}

    def find(self, config: Config, seed: int) -> Training | None:
        """The stored training of that configuration under that seed."""
        wanted = Training.of(config, seed, Outcome(metric=None))
        return self._known.get(wanted.key)

    def add(self, training: Training) -> None:
        """Store one more."""
        with self.path.open("ab") as file:
            file.write(json.dumps(asdict(training), allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.trainings.append(training)
        self._known[training.key] = training


class Budgeted:
    """`interfaces.Task` with a budget: `trainings` trainings beside the baseline, then Spent."""

    def __init__(
        self,
        task: Task,
        *,
        trainings: int,
        book: Book,
        baseline: Book,
        baseline_seeds: Collection[int],
    ) -> None:
        """`baseline` is shared by the arms of one repeat; the default configuration under one of
        `baseline_seeds` belongs to it, and nothing else: also a trial may train the default."""
        self.name, self.metric, self.minimize = task.name, task.metric, task.minimize
        self.space, self.description = task.space, task.description
        self.book = book
        self.baseline = baseline
        self._task = task
        self._trainings = trainings
        self._baseline_seeds = frozenset(baseline_seeds)

    @property
    def digest(self) -> str:
        """The task's own."""
        return self._task.digest

    def host(self) -> dict[str, Any]:
        """The task's own."""
        return self._task.host()

    def run(
        self, config: Config, *, seed: int, progress: Callable[[str], None] | None = None
    ) -> Outcome:
        """Train, or give what this very training gave before. Raises Spent."""
        repeat = seed in self._baseline_seeds and dict(config) == self.space.defaults()
        book = self.baseline if repeat else self.book
        found = book.find(config, seed)
        if found is None:
            if book is self.book and len(book.trainings) >= self._trainings:
                raise Spent
            outcome = sane(self._task.run(config, seed=seed, progress=progress))
            found = Training.of(config, seed, outcome)
            book.add(found)
        return Outcome(
            metric=found.metric,
            failure=found.failure,
            message=found.message,
            seconds=found.seconds,
        )
