"""Records a surface: trains every point of a grid, and keeps what came out. `runner record`.

One process imports torch once and forks a child for each training, so that a training of a second
costs little beside itself. The budget is processor time: a busy host makes it slower, not other.
Each result is on the disk before the next is begun; the same command goes on after kill -9.

It runs on a Linux host, knows no search and decides nothing; failures are results. What it trains
is `runner.train` exactly as the gpt task does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import selectors
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from runner.corpus import prepare
from runner.gpt_space import SEQUENCE_LENGTH
from runner.recipe import SEED_RULE, Recipe
from runner.surface_file import Measured, SurfaceFile, write_surface
from runner.tasks.base import digest_of_files, host_facts
from runner.tasks.gpt import TRAINER_FILES
from sandbox.mechanism import Config

WALL_FACTOR, WALL_EXTRA_SECONDS = 60.0, 120.0
CPU_EXTRA_SECONDS = 60
ANSWER_BYTES = 64 * 1024
MESSAGE_CHARACTERS = 500
MAX_INFRASTRUCTURE = 3
SAY_EVERY = 20

Say = Callable[[str], None]
Train = Callable[[Config, int], dict[str, Any]]


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
        """Open or create. Raises RecordingError where it belongs to another recording."""
        self.lines: dict[Job, Line] = {}
        self.began = datetime.now(UTC).isoformat(timespec="seconds")
        path.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            say(f"{path}: the last line was cut short by a crash; its training is done again")
        self._file = path.open("r+b" if data else "w+b")
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


@dataclass(kw_only=True)
class _Child:
    """A training under way."""

    pid: int
    job: Job
    pipe: int
    deadline: float
    answer: bytes = b""
    timed_out: bool = False


class Recorder:
    """Trains what is missing, `workers` at a time, each in a forked child."""

    def __init__(self, *, recipe: Recipe, log: Log, train: Train, workers: int, say: Say) -> None:
        self.recipe = recipe
        self.log = log
        self.train = train
        self.workers = workers
        self.say = say
        self._children: dict[int, _Child] = {}
        self._selector = selectors.DefaultSelector()
        self._broken_in_a_row = 0

    def run(self) -> None:
        """Train everything that has no result yet, in two passes. Raises RecordingError."""
        try:
            self._pass([Job(*job) for job in self.recipe.jobs()])
            self._pass([Job(*job) for job in self.recipe.best_jobs(self.log.firsts())])
        finally:
            for child in self._children.values():
                os.kill(child.pid, signal.SIGKILL)
                os.waitpid(child.pid, 0)
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
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            self._in_child(job, writing)
        os.close(writing)
        wall = self.recipe.budget_seconds * WALL_FACTOR + WALL_EXTRA_SECONDS
        child = _Child(pid=pid, job=job, pipe=reading, deadline=time.monotonic() + wall)
        self._children[reading] = child
        self._selector.register(reading, selectors.EVENT_READ)

    def _in_child(self, job: Job, writing: int) -> None:
        """Train, answer, and end without the parent's clean-up. A parent that died is not waited
        for: processor time is limited, and the pipe is broken then."""
        code = 1
        try:
            limit = int(self.recipe.budget_seconds * 10) + CPU_EXTRA_SECONDS
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 1)
            seed = self.recipe.training_seed(job.point, job.repeat)
            answer = self.train(self.recipe.knobs(job.point, SEQUENCE_LENGTH), seed)
            os.write(writing, json.dumps(answer).encode()[:ANSWER_BYTES])
            code = 0
        finally:
            os._exit(code)

    def _wait(self) -> None:
        """Until something happens: an answer, an end, or a deadline."""
        nearest = min(child.deadline for child in self._children.values())
        for key, _ in self._selector.select(max(0.0, nearest - time.monotonic())):
            child = self._children[key.fd]
            data = os.read(child.pipe, ANSWER_BYTES)
            child.answer += data
            if not data or len(child.answer) > ANSWER_BYTES:
                self._finish(child)
        for child in list(self._children.values()):  # a child that answered is gone already
            if time.monotonic() >= child.deadline:
                os.kill(child.pid, signal.SIGKILL)
                child.timed_out = True
                self._finish(child)

    def _finish(self, child: _Child) -> None:
        self._selector.unregister(child.pipe)
        os.close(child.pipe)
        del self._children[child.pipe]
        _, status, used = os.wait4(child.pid, 0)
        seconds = round(used.ru_utime + used.ru_stime, 3)
        line = _line(child, status, seconds)
        broken = line.measured.failure == "infrastructure"
        self._broken_in_a_row = self._broken_in_a_row + 1 if broken else 0
        if self._broken_in_a_row >= MAX_INFRASTRUCTURE:
            raise RecordingError(f"{MAX_INFRASTRUCTURE} times in a row: {line.message}")
        if not broken:  # nobody looked: it is tried again at the next start
            self.log.add(line)


def _line(child: _Child, status: int, seconds: float) -> Line:
    """What a child's end means."""

    def failed(failure: str, message: str) -> Line:
        return Line(child.job, Measured(None, failure, 0, seconds), message[-MESSAGE_CHARACTERS:])

    if child.timed_out:
        return failed("timeout", "killed at its deadline")
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        kind = {signal.SIGKILL: "oom", signal.SIGXCPU: "timeout"}.get(signal.Signals(number))
        return failed(kind or "crash", f"ended by signal {number}")
    try:
        answer = json.loads(child.answer)
        if answer["failure"]:
            return failed(str(answer["failure"]), str(answer["message"]))
        measured = Measured(float(answer["metric"]), "", int(answer["steps"]), seconds)
    except (ValueError, KeyError, TypeError) as error:
        return failed("crash", f"ended with {status} and no answer: {error}")
    return Line(child.job, measured, "")


# --- the trainer ---------------------------------------------------------------------------------


def real_trainer(recipe: Recipe, cache: Path) -> tuple[Train, dict[str, Any]]:
    """`runner.train` in this process's children, and what makes its numbers comparable."""
    os.environ.update({"OMP_NUM_THREADS": str(recipe.threads), "MKL_NUM_THREADS": "1"})
    from runner import train as trainer  # noqa: PLC0415 - torch: seconds, only for who records
    from runner.train_options import TrainingFailure, checked_knobs, parse  # noqa: PLC0415

    corpus = prepare(cache)
    knobs = checked_knobs(recipe.knobs(recipe.number(recipe.start()), SEQUENCE_LENGTH))
    shape = trainer.Shape.of(knobs)
    trainer.Optimizers(trainer.GPT(shape), shape, knobs)  # what torch loads late, before the forks
    words = [
        f"--budget-seconds={recipe.budget_seconds}",
        f"--threads={recipe.threads}",
        f"--corpus={corpus.path.resolve()}:{corpus.digest}:{corpus.train_bytes}",
    ]

    def train(config: Config, seed: int) -> dict[str, Any]:
        options = parse([*words, f"--seed={seed}", json.dumps(dict(config))])
        try:
            done = trainer.experiment(options)
        except TrainingFailure as error:
            return {"failure": error.failure, "message": str(error)}
        except MemoryError as error:
            return {"failure": "oom", "message": str(error)}
        except Exception as error:
            kind = "oom" if "allocate memory" in str(error) else "crash"
            return {"failure": kind, "message": f"{type(error).__name__}: {error}"}
        steps = int(done["num_steps"])
        return {"failure": "", "metric": float(done[recipe.metric]), "steps": steps}

    return train, {
        "trainer_digest": digest_of_files(TRAINER_FILES),
        "corpus_digest": corpus.digest,
        "torch": version("torch"),
        "host": host_facts(),
    }


def record(recipe: Recipe, *, out: Path, cache: Path, workers: int, say: Say) -> str:
    """Record (or go on recording) and pack. The packed file's digest. Raises RecordingError."""
    say("loading torch and the text")
    train, facts = real_trainer(recipe, cache)
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


def main_recording(recipe: Recipe, *, out: Path, cache: Path, workers: int, say: Say) -> int:
    """For the command line: 0, or 2 with the reason said."""
    try:
        digest = record(recipe, out=out, cache=cache, workers=workers, say=say)
    except RecordingError as error:
        say(f"ERROR: {error}")
        return 2
    size = out.stat().st_size
    say(f"recorded {recipe.points} points: {out}, {size} bytes, digest {digest}")
    sys.stdout.flush()
    return 0
