"""Trainings in forked children of one process that has loaded torch and seen the text: for whoever
needs thousands of short ones, where loading torch would cost more than training.

A child trains with `runner.gpt.train` exactly as the gpt task's own process does, answers on a
pipe, and ends; it is limited in processor time and memory, and killed at a deadline in wall time.
Run as `python -m runner.gpt.forking`, this is a server: a JSON line in, a JSON line out, one at a
time, until its input ends. It knows no task, no grid and no search.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from sandbox.mechanism import Config

ANSWER_BYTES = 64 * 1024
MESSAGE_CHARACTERS = 500
CPU_FACTOR, CPU_EXTRA_SECONDS = 10.0, 60
WALL_FACTOR, WALL_EXTRA_SECONDS = 60.0, 120.0
REQUEST_BYTES = 64 * 1024

Train = Callable[[Config, int], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a forked training gave. `metric` is None exactly if `failure` names a class; `seconds`
    of processor time, evaluation included."""

    metric: float | None
    failure: str = ""
    message: str = ""
    steps: int = 0
    seconds: float = 0.0


@dataclass(kw_only=True)
class Child:
    """A training under way: read from `pipe` until it ends, then `finish`."""

    pid: int
    pipe: int
    deadline: float
    answer: bytes = b""
    timed_out: bool = False

    def read(self) -> bool:
        """Take what there is to read; whether the child has said all that it may say."""
        data = os.read(self.pipe, ANSWER_BYTES)
        self.answer += data
        return not data or len(self.answer) > ANSWER_BYTES

    def kill(self) -> None:
        """End it at its deadline."""
        os.kill(self.pid, signal.SIGKILL)
        self.timed_out = True


def start(
    train: Train, config: Config, seed: int, *, budget_seconds: float, memory_mb: int = 0
) -> Child:
    """Fork a child that trains."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _in_child(train, config, seed, writing, budget_seconds=budget_seconds, memory_mb=memory_mb)
    os.close(writing)
    wall = budget_seconds * WALL_FACTOR + WALL_EXTRA_SECONDS
    return Child(pid=pid, pipe=reading, deadline=time.monotonic() + wall)


def _in_child(
    train: Train, config: Config, seed: int, writing: int, *, budget_seconds: float, memory_mb: int
) -> None:
    """Train, answer, and end without the parent's clean-up. Should the parent die: processor time
    is limited, and the pipe is broken then."""
    code = 1
    try:
        cpu = int(budget_seconds * CPU_FACTOR) + CPU_EXTRA_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
        if memory_mb:
            limit = memory_mb * 1024 * 1024
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1):
            os.dup2(null, stream)
        answer = json.dumps(train(config, seed))
        os.write(writing, answer.encode()[:ANSWER_BYTES])
        code = 0
    finally:
        os._exit(code)


def finish(child: Child) -> Trained:
    """Wait for the child's end, and say what it means."""
    os.close(child.pipe)
    _, status, used = os.wait4(child.pid, 0)
    seconds = round(used.ru_utime + used.ru_stime, 3)

    def failed(failure: str, message: str) -> Trained:
        text = message[-MESSAGE_CHARACTERS:]
        return Trained(metric=None, failure=failure, message=text, seconds=seconds)

    if child.timed_out:
        return failed("timeout", "killed at its deadline")
    if os.WIFSIGNALED(status):
        number = signal.Signals(os.WTERMSIG(status))
        kind = {signal.SIGKILL: "oom", signal.SIGXCPU: "timeout"}.get(number, "crash")
        return failed(kind, f"ended by {number.name}")
    try:
        answer = json.loads(child.answer)
        if answer["failure"]:
            return failed(str(answer["failure"]), str(answer["message"]))
        metric, steps = float(answer["metric"]), int(answer["steps"])
    except (ValueError, KeyError, TypeError) as error:
        return failed("crash", f"ended with {status} and no answer: {error!r}")
    return Trained(metric=metric, steps=steps, seconds=seconds)


def real_trainer(words: list[str], metric: str) -> Train:
    """`runner.gpt.train` with the options in `words`, loaded now: everything that torch loads late
    is loaded before the first fork."""
    from runner.gpt import train as trainer  # noqa: PLC0415 - torch: seconds, only for who trains
    from runner.gpt.options import TrainingFailure, checked_knobs, parse  # noqa: PLC0415

    knobs = checked_knobs({})
    shape = trainer.Shape.of(knobs)
    trainer.Optimizers(trainer.GPT(shape), shape, knobs)

    def train(config: Config, seed: int) -> dict[str, Any]:
        try:
            options = parse([*words, f"--seed={seed}", json.dumps(dict(config))])
            done = trainer.experiment(options)
        except TrainingFailure as error:
            return {"failure": error.failure, "message": str(error)}
        except MemoryError as error:
            return {"failure": "oom", "message": str(error)}
        except Exception as error:
            kind = "oom" if "allocate memory" in str(error) else "crash"
            return {"failure": kind, "message": f"{type(error).__name__}: {error}"}
        return {"failure": "", "metric": float(done[metric]), "steps": int(done["num_steps"])}

    return train


def serve(train: Train, *, budget_seconds: float, memory_mb: int) -> None:
    """Answer `{"config": ..., "seed": ...}` lines on standard input until it ends."""
    while line := sys.stdin.readline(REQUEST_BYTES):
        request = json.loads(line)
        child = start(
            train,
            request["config"],
            request["seed"],
            budget_seconds=budget_seconds,
            memory_mb=memory_mb,
        )
        while True:
            wait = max(0.0, child.deadline - time.monotonic())
            ready, _, _ = select.select([child.pipe], [], [], wait)
            if not ready:
                child.kill()
            if not ready or child.read():
                break
        sys.stdout.write(json.dumps(asdict(finish(child))) + "\n")
        sys.stdout.flush()


def main() -> int:
    """The server."""
    parser = argparse.ArgumentParser(prog="runner.gpt.forking")
    parser.add_argument("--budget-seconds", type=float, required=True)
    parser.add_argument("--memory-mb", type=int, default=0)
    parser.add_argument("--metric", default="val_bpb")
    options, words = parser.parse_known_args()
    words.append(f"--budget-seconds={options.budget_seconds}")
    with contextlib.redirect_stdout(sys.stderr):
        train = real_trainer(words, options.metric)
    sys.stdout.write(json.dumps({"ready": True}) + "\n")
    sys.stdout.flush()
    serve(train, budget_seconds=options.budget_seconds, memory_mb=options.memory_mb)
    return 0


if __name__ == "__main__":
    sys.exit(main())
