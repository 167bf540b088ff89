"""Records a surface: trains every point of a grid, and keeps what came out. `runner record`.

One process imports torch once and forks a child for each training, so that a training of a second
costs little beside itself. The budget is processor time: a busy host makes it slower, not other.
Each result is on the disk before the next is begun; the same command goes on after kill -9.

It runs on a Linux host, knows no search and decides nothing; failures are results. What it trains
is `runner.gpt.train` exactly as the gpt task does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import selectors
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from runner.gpt import forking
from runner.gpt.corpus import prepare
from runner.gpt.forking import Child, Train, real_trainer
from runner.gpt.space import SEQUENCE_LENGTH
from runner.surfaces.recipe import SEED_RULE, Recipe
from runner.surfaces.surface_file import Measured, SurfaceFile, write_surface
from runner.tasks.base import digest_of_files, host_facts
from runner.tasks.gpt import TRAINER_FILES

MAX_INFRASTRUCTURE = 3
SAY_EVERY = 20

Say = Callable[[str], None]


class RecordingError(RuntimeError):
    """A recording that can't begin or go on; the message says what to do."""


class Job(NamedTuple):
    """One training: the point's place in the grid, and which repeat of it."""

    point: int
    repeat: int


class Line(NamedTuple):
    """A stored training."""

    job: Job
    measured: Measured
    message: str


class Log:
    """The results so far: a header and one JSON line each, synced. A line that a crash cut short
    is dropped, and its training done again."""

    def __init__(self, path: Path, header: Mapping[str, Any], say: Say) -> None:
        """Open or create. Raises RecordingError where it belongs to another recording, or can't
        be written."""
        self.lines: dict[Job, Line] = {}
        self.began = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            data = path.read_bytes() if path.exists() else b""
            self._file = path.open("r+b" if data else "w+b")
        except OSError as error:
            raise RecordingError(
                f"{path} can't be written ({error}): choose another --out"
            ) from None
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            say(f"{path}: the last line was cut short by a crash; its training is done again")
        self._file.truncate(len(whole))
        self._file.seek(len(whole))
        if whole:
            self._take(path, whole.splitlines(), header)
        else:
            self._write({**header, "began": self.began})

    def _take(self, path: Path, lines: list[bytes], header: Mapping[str, Any]) -> None:
        try:
            first, *rest = [json.loads(line) for line in lines]
            self.began = str(first.pop("began"))
            for row in rest:
                job = Job(*row["job"])
                self.lines[job] = Line(job, Measured(*row["measured"]), row["message"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RecordingError(f"{path} is broken ({error}): remove it to begin anew") from None
        other = sorted(k for k in {*header, *first} if header.get(k) != first.get(k))
        if other:
            raise RecordingError(
                f"{path} holds a recording with other {', '.join(other)}: it can't be continued "
                "here; choose another --out"
            )

    def add(self, line: Line) -> None:
        """Store one training; it is on the disk afterwards."""
        self.lines[line.job] = line
        self._write({"job": line.job, "measured": line.measured, "message": line.message})

    def firsts(self) -> dict[int, float]:
        """The metric of each point's first training, where it gave one."""
        found = {
            job.point: line.measured.metric for job, line in self.lines.items() if not job.repeat
        }
        return {point: metric for point, metric in found.items() if metric is not None}

    def _write(self, value: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(value, allow_nan=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class Recorder:
    """Trains what is missing, `workers` at a time, each in a forked child."""

    def __init__(self, *, recipe: Recipe, log: Log, train: Train, workers: int, say: Say) -> None:
        self.recipe = recipe
        self.log = log
        self.train = train
        self.workers = workers
        self.say = say
        self._children: dict[int, tuple[Child, Job]] = {}
        self._selector = selectors.DefaultSelector()
        self._broken_in_a_row = 0

    def run(self) -> None:
        """Train everything that has no result yet, in two passes. Raises RecordingError."""
        try:
            self._pass([Job(*job) for job in self.recipe.jobs()])
            self._pass([Job(*job) for job in self.recipe.best_jobs(self.log.firsts())])
        finally:
            for child, _ in self._children.values():
                child.kill()
                forking.finish(child)
            self._selector.close()

    def _pass(self, jobs: list[Job]) -> None:
        left = [job for job in jobs if job not in self.log.lines]
        self.say(f"{len(jobs)} trainings, {len(jobs) - len(left)} are done")
        told = 0
        while left or self._children:
            while left and len(self._children) < self.workers:
                self._start(left.pop(0))
            self._wait()
            done = len(jobs) - len(left) - len(self._children)
            if done >= told + SAY_EVERY:
                told = done
                self.say(f"{done} of {len(jobs)} trainings")
        if lost := [job for job in jobs if job not in self.log.lines]:
            raise RecordingError(f"{len(lost)} trainings have no result yet: start it again")

    def _start(self, job: Job) -> None:
        recipe = self.recipe
        child = forking.start(
            self.train,
            recipe.knobs(job.point, SEQUENCE_LENGTH),
            recipe.training_seed(job.point, job.repeat),
            budget_seconds=recipe.budget_seconds,
        )
        self._children[child.pipe] = child, job
        self._selector.register(child.pipe, selectors.EVENT_READ)

    def _wait(self) -> None:
        """Until something happens: an answer, an end, or a deadline."""
        nearest = min(child.deadline for child, _ in self._children.values())
        for key, _ in self._selector.select(max(0.0, nearest - time.monotonic())):
            child, job = self._children[key.fd]
            if child.read():
                self._finish(child, job)
        for child, job in list(self._children.values()):  # who answered is gone already
            if time.monotonic() >= child.deadline:
                child.kill()
                self._finish(child, job)

    def _finish(self, child: Child, job: Job) -> None:
        self._selector.unregister(child.pipe)
        del self._children[child.pipe]
        done = forking.finish(child)
        broken = done.failure == "infrastructure"
        self._broken_in_a_row = self._broken_in_a_row + 1 if broken else 0
        if self._broken_in_a_row >= MAX_INFRASTRUCTURE:
            raise RecordingError(f"{MAX_INFRASTRUCTURE} times in a row: {done.message}")
        if not broken:  # nobody looked: it is tried again at the next start
            measured = Measured(done.metric, done.failure, done.steps, done.seconds)
            self.log.add(Line(job, measured, done.message))


# --- the trainer ---------------------------------------------------------------------------------


def trainer_of(recipe: Recipe, cache: Path) -> tuple[Train, dict[str, Any]]:
    """`runner.gpt.train` for this recipe, and what makes its numbers comparable."""
    os.environ.update({"OMP_NUM_THREADS": str(recipe.threads), "MKL_NUM_THREADS": "1"})
    corpus = prepare(cache)
    words = [
        f"--budget-seconds={recipe.budget_seconds}",
        f"--threads={recipe.threads}",
        f"--corpus={corpus.path.resolve()}:{corpus.digest}:{corpus.train_bytes}",
    ]
    return real_trainer(words, recipe.metric), {
        "trainer_digest": digest_of_files(TRAINER_FILES),
        "corpus_digest": corpus.digest,
        "torch": version("torch"),
        "host": host_facts(),
    }


def record(recipe: Recipe, *, out: Path, cache: Path, workers: int, say: Say) -> str:
    """Record (or go on recording) and pack. The packed file's digest. Raises RecordingError."""
    say("loading torch and the text")
    train, facts = trainer_of(recipe, cache)
    header = {"recipe": recipe.digest, "seed_rule": SEED_RULE, **facts}
    log = Log(out.with_name(out.name + ".parts.jsonl"), header, say)
    with contextlib.closing(log):
        Recorder(recipe=recipe, log=log, train=train, workers=workers, say=say).run()
        return pack(recipe, log, facts, out)


def pack(recipe: Recipe, log: Log, facts: Mapping[str, Any], out: Path) -> str:
    """Write the compressed surface from a finished log; its digest."""
    results: list[list[Measured]] = [[] for _ in range(recipe.points)]
    for job in sorted(log.lines):
        results[job.point].append(log.lines[job].measured)
    origin = {
        **facts,
        "seed_rule": SEED_RULE,
        "cpu_seconds": round(sum(line.measured.seconds for line in log.lines.values()), 1),
        "times": {
            "began": log.began,
            "log_digest": hashlib.sha256(
                json.dumps([log.lines[job] for job in sorted(log.lines)]).encode()
            ).hexdigest(),
        },
    }
    surface = SurfaceFile(recipe=recipe, origin=origin, results=tuple(map(tuple, results)))
    return write_surface(out, surface)
