"""Trainings, as many at once as the run may have: planned trials, and configurations trained again.

Each outcome is in the journal before anybody else hears of it, from the thread that waited for it:
a runner that is killed repeats at most what was being trained at that moment. Randomness comes
from what is trained and why, never from when, so that interrupted and uninterrupted runs agree.
Nothing is decided here.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from typing import Self, TypeVar

from runner.interfaces import LARGEST_METRIC, Outcome, Task
from runner.loop.measurements import Measurements, Purpose
from runner.loop.noise import form
from runner.storage.journal import Entry, Journal, Phase, derive
from sandbox.mechanism import Config

T = TypeVar("T")
Say = Callable[[str], None]

WAKE_SECONDS = 0.5

# Part of the seeds of runs that began with earlier versions: not to be changed.
_SEEDS = {Purpose.BASELINE: "repeat", Purpose.CONFIRM: "confirm", Purpose.FINAL: "final"}


class Trainings:
    """The workers of one run. A context manager: when left, nothing is being trained any more."""

    def __init__(
        self, *, journal: Journal, task: Task, parallel: int, say: Say, activity: Say
    ) -> None:
        self.journal = journal
        self.measurements = Measurements(journal)
        self.task = task
        self.parallel = parallel
        self.say = say
        self._activity = activity
        self._lock = threading.Lock()
        self._busy: list[str] = []
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        # A trainer dies with the thread that started it: these live as long as the run.
        self._pool = ThreadPoolExecutor(self.parallel, thread_name_prefix="training")
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def measured(self, entries: Iterable[Entry]) -> Mapping[int, Future[Entry]]:
        """Begin to train planned trials; by number, what gives each as measured. One that is
        measured already is not trained again."""
        return {entry.number: self._submit(partial(self._trial, entry)) for entry in entries}

    def again(
        self,
        purpose: Purpose,
        trial: int,
        config: Config,
        *,
        wanted: int,
        what: str,
        of: int | None = None,
    ) -> list[Outcome]:
        """Train a configuration until `wanted` outcomes are stored for that purpose; all of them.

        What is stored already is not trained again. `what` is for people, and `of` how many there
        will be, if more than `wanted`.
        """
        of = of or wanted
        done = self.measurements.known(purpose, trial)
        missing = [number for number in range(wanted) if number not in done]
        futures = [
            self._submit(
                partial(
                    self._repeat, purpose, trial, config, number, f"{what} {number + 1} of {of}"
                )
            )
            for number in missing
        ]
        for future in futures:
            awaited(future)
        return self.measurements.outcomes(purpose, trial)

    def _submit(self, call: Callable[[], T]) -> Future[T]:
        if self._pool is None:
            raise RuntimeError("these trainings were ended")
        return self._pool.submit(call)

    def _trial(self, entry: Entry) -> Entry:
        if entry.phase is Phase.MEASURED:
            return entry
        number = entry.number
        changes = ", ".join(f"{k}={v}" for k, v in entry.changes.items()) or "no change"
        self.say(f"trial {number}: training {changes}")
        outcome = self._train(
            entry.config, seed=derive(self.journal.seed, number, "train"), what=f"trial {number}"
        )
        self.journal.measure(number, outcome)
        return replace(
            entry,
            phase=Phase.MEASURED,
            metric=outcome.metric,
            failure=outcome.failure,
            message=outcome.message,
            seconds=outcome.seconds,
        )

    def _repeat(self, purpose: Purpose, trial: int, config: Config, number: int, what: str) -> None:
        self.say(f"{what}: training")
        seed = derive(self.journal.seed, trial, f"{_SEEDS[purpose]}/{number}")
        outcome = self._train(config, seed=seed, what=what)
        self.measurements.add(purpose, trial, number, outcome)
        self.say(f"{what}: {self._told(outcome)}")

    def _train(self, config: Config, *, seed: int, what: str) -> Outcome:
        with self._lock:
            self._busy.append(what)
        self._tell("")
        try:
            return sane(self.task.run(config, seed=seed, progress=self._tell))
        finally:
            with self._lock:
                self._busy.remove(what)

    def _tell(self, progress: str) -> None:
        with self._lock:
            busy = list(self._busy)
        if busy:
            told = f": {progress}" if progress and len(busy) == 1 else ""
            self._activity(f"training {'; '.join(busy)}{told}")

    def _told(self, outcome: Outcome) -> str:
        if outcome.metric is None:
            return f"failed ({outcome.failure}): {brief(outcome.message)}"
        number = f"{outcome.metric:{form(outcome.metric)}}"
        return f"{self.task.metric} {number} in {outcome.seconds:.1f} s"


def brief(message: str) -> str:
    """A failure in few lines: why comes first in it, and what was printed last ends it."""
    return message if len(message) <= 900 else f"{message[:600]} ... {message[-300:]}"


def awaited(future: Future[T]) -> T:
    """What a training gives, or raises. Python handles signals in the main thread alone, and one
    that comes just before this falls asleep does not wake it: so it never sleeps for long."""
    while not future.done():
        wait([future], WAKE_SECONDS)
    return future.result()


def sane(outcome: Outcome) -> Outcome:
    """A metric that is no finite number, or one that nothing can be computed from, is no metric,
    whatever the task says."""
    if outcome.metric is not None and not abs(outcome.metric) <= LARGEST_METRIC:
        finite = math.isfinite(outcome.metric)
        above = f": above {LARGEST_METRIC:g} a metric is as good as infinite" if finite else ""
        message = f"metric {outcome.metric}{above}"
        return replace(outcome, metric=None, failure="nan", message=message)
    if outcome.metric is None and not outcome.failure:
        return replace(outcome, failure="no_metric", message=outcome.message or "no metric")
    return outcome
