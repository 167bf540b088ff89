"""One screening, and something that dies or hangs in it. Each gives a `Result`.

What is right: a whole verdict or "could not look", never a failure that the draft is blamed for;
one report; and nothing left of what was killed.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from own_engine import OwnEngine

from sandbox import image, reaper
from sandbox.backends import Backend, engine, get_backend
from sandbox.backends.base import Channel
from sandbox.backends.cgroups import Hierarchy
from sandbox.draft import draft_from_files
from sandbox.errors import InfrastructureError
from sandbox.limits import Limits
from sandbox.report import Draft, Outcome, Report
from sandbox.screen import CHECKS, screen

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 5  # with a hung engine, instead of half a minute for each answer
BOUND_SECONDS = 120.0
END_SECONDS = 60.0
CLIENT = """
import json, sys
from sandbox import reaper
from sandbox.backends import get_backend
from sandbox.draft import draft_from_files
from sandbox.screen import screen
files = {path: text.encode() for path, text in json.load(sys.stdin).items()}
print(reaper.me(), flush=True)
report = screen(draft_from_files(files), backend=get_backend(sys.argv[1]))
print("VERDICT", report.outcome, flush=True)
"""


@dataclass(kw_only=True)
class Result:
    """What was done to it, how it ended, and what is wrong with that (nothing, one hopes)."""

    kind: str
    what: str
    ended: str
    seconds: float
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Chance:
    """Where this run stands: its engine, its backend by name, its luck."""

    own: OwnEngine
    name: str
    random: random.Random
    whole_seconds: float  # what an undisturbed screening takes: where random moments lie

    def moment(self) -> float:
        """A random moment of a screening."""
        return self.random.uniform(0, self.whole_seconds)


def tabu() -> Draft:
    """An honest mechanism with its test."""
    paths = ("mechanisms/tabu.py", "tests/test_tabu.py")
    return draft_from_files({p: (ROOT / "mechanisms_repo" / p).read_bytes() for p in paths})


def left_of(chance: Chance, owner: str) -> list[str]:
    """Containers or control groups of that owner, whatever state they are in."""
    if chance.name == "docker":
        return chance.own.left(owner)
    _, _, pid, started = owner.split("|")
    parents = Hierarchy.find().parents.values()
    return [p.name for f in parents for p in f.iterdir() if f".{pid}.{started}." in p.name]


def nothing_left(chance: Chance, owner: str) -> list[str]:
    """What stays although it was reaped for a while (an engine may still be starting it)."""
    deadline = time.monotonic() + END_SECONDS
    while True:
        get_backend(chance.name).reap()
        left = left_of(chance, owner)
        if not left or time.monotonic() > deadline:
            return [f"left: {name[:40]}" for name in left]
        time.sleep(0.2)


def judged(report: Report) -> list[str]:
    """What is wrong with a report of an honest draft in trouble."""
    wrong = []
    if [c.name for c in report.checks] != list(CHECKS):
        wrong.append("checks are missing")
    if report.outcome not in (Outcome.PASSED, Outcome.COULD_NOT_LOOK):
        blamed = [f"{f.check}: {f.rule}" for f in report.findings if f.severity == "error"]
        wrong.append(f"the draft is blamed: {blamed}")
    return wrong


def _ended(report: Report) -> str:
    unseen = [c.name for c in report.checks if c.outcome is Outcome.COULD_NOT_LOOK]
    return f"{report.outcome}{f' at {unseen[0]}' if unseen else ''}"


def kill_client(chance: Chance) -> Result:
    """SIGKILL to the process that screens."""
    began, moment = time.monotonic(), chance.moment()
    client = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", CLIENT, chance.name],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    if not client.stdin or not client.stdout:
        raise SystemExit("no pipes")
    json.dump({path: data.decode() for path, data in tabu().files.items()}, client.stdin)
    client.stdin.close()
    owner = client.stdout.readline().strip()
    time.sleep(moment)
    client.send_signal(signal.SIGKILL)
    client.wait()
    said = client.stdout.read().split()
    client.stdout.close()
    wrong = [] if said in ([], ["VERDICT", "passed"]) else [f"it said {said}"]
    wrong += nothing_left(chance, owner)
    what = f"client killed after {moment:.2f} s"
    ended = "passed before" if said else "no verdict"
    return result(kind=f"client ({chance.name})", what=what, ended=ended, began=began, wrong=wrong)


class Recording:
    """The real backend; remembers the workers that it started."""

    def __init__(self, backend: Backend) -> None:
        self.name, self.backend = backend.name, backend
        self.channels: list[Channel] = []

    @property
    def image_id(self) -> str:
        return self.backend.image_id

    @property
    def fingerprint(self) -> str:
        return self.backend.fingerprint

    def start(self, **arguments: Any) -> Channel:
        channel = self.backend.start(**arguments)
        self.channels.append(channel)
        return channel

    def reap(self) -> list[str]:
        return self.backend.reap()


def kill_worker(chance: Chance) -> Result:
    """Kill a worker that was started, at a random moment. A worker that ends by itself is what
    this looks like from outside, so that the draft may be blamed for a crash, and for nothing
    else; it is not passed."""
    began, moment, over = time.monotonic(), chance.moment() / 2, threading.Event()
    recording = Recording(get_backend(chance.name))

    def killer() -> None:
        over.wait(moment)
        while not over.is_set():
            if recording.channels:
                chance.random.choice(recording.channels).kill()
                return
            over.wait(0.01)

    thread = threading.Thread(target=killer)
    thread.start()
    report = screen(tabu(), backend=recording)
    over.set()
    thread.join()
    wrong = judged(report)
    wrong += [f"left: {name[:40]}" for name in left_of(chance, reaper.me())]
    what = f"a worker killed after {moment:.2f} s"
    return result(
        kind=f"worker ({chance.name})", what=what, ended=_ended(report), began=began, wrong=wrong
    )


def kill_engine(chance: Chance) -> Result:
    """SIGKILL to the engine, and a new one."""
    began, moment = time.monotonic(), chance.moment()
    backend = get_backend("docker")
    killer = threading.Timer(moment, chance.own.kill)
    killer.start()
    report = screen(tabu(), backend=backend)
    killer.join()
    chance.own.start()
    wrong = judged(report) + nothing_left(chance, reaper.me())
    what = f"engine killed after {moment:.2f} s"
    return result(kind="engine", what=what, ended=_ended(report), began=began, wrong=wrong)


def hang_engine(chance: Chance) -> Result:
    """SIGSTOP to the engine until the screening has ended."""
    began, moment = time.monotonic(), chance.moment()
    with patient(PATIENCE_SECONDS):
        backend = get_backend("docker")
        stopper = threading.Timer(moment, chance.own.hang)
        stopper.start()
        report = screen(tabu(), backend=backend, limits=Limits(start_seconds=PATIENCE_SECONDS))
        took = time.monotonic() - began
        stopper.join()
        chance.own.go_on()
    wrong = judged(report) + nothing_left(chance, reaper.me())
    if took > BOUND_SECONDS:
        wrong.append(f"it took {took:.0f} s")
    what = f"engine hung after {moment:.2f} s"
    return result(kind="hung engine", what=what, ended=_ended(report), began=began, wrong=wrong)


def full_disk(chance: Chance) -> Result:
    """The engine's disk is full from a random moment on."""
    began, moment = time.monotonic(), chance.moment() / 2
    backend = get_backend("docker")
    filler = threading.Timer(moment, chance.own.fill)
    filler.start()
    report = screen(tabu(), backend=backend)
    filler.join()
    second = screen(tabu(), backend=backend)
    chance.own.free()
    wrong = judged(report) + judged(second) + nothing_left(chance, reaper.me())
    again = screen(tabu(), backend=get_backend("docker"))
    if again.outcome is not Outcome.PASSED:
        wrong.append(f"with room again: {_ended(again)}")
    ended = f"{_ended(report)}; then {_ended(second)}: {_said(second)}"
    return result(
        kind="full disk", what=f"full after {moment:.2f} s", ended=ended, began=began, wrong=wrong
    )


def vanished_image(chance: Chance) -> Result:
    """The image is removed between connecting and starting."""
    began, backend = time.monotonic(), get_backend("docker")
    client, tag, wrong = engine.connect(), image.tag(), []
    client.tag(tag, "kept", "safe")
    client.remove_image(tag, force=True)  # its name alone: the id is still there
    try:
        get_backend("docker")
        wrong.append("it is not missed")
    except InfrastructureError as error:
        if "python -m sandbox image" not in str(error):
            wrong.append(f"no way out is named: {error}")
    client.remove_image("kept:safe", force=True)
    report = screen(tabu(), backend=backend)
    get_backend("docker", progress=lambda _: None)
    wrong += judged(report) + nothing_left(chance, reaper.me())
    if report.outcome is not Outcome.COULD_NOT_LOOK:
        wrong.append("it looked without an image")
    ended = f"{_ended(report)}: {_said(report)}"
    return result(
        kind="image gone", what="the image was removed", ended=ended, began=began, wrong=wrong
    )


def _said(report: Report) -> str:
    return next((f.message[:160] for f in report.findings if f.rule == "could-not-look"), "")


@contextmanager
def patient(seconds: int) -> Iterator[None]:
    """Wait that long for each answer of an engine."""
    usual, engine.WORKER_SECONDS = engine.WORKER_SECONDS, seconds
    try:
        yield
    finally:
        engine.WORKER_SECONDS = usual


def result(*, kind: str, what: str, ended: str, began: float, wrong: list[str]) -> Result:
    """A result, its time taken from `began` (of `time.monotonic`)."""
    seconds = round(time.monotonic() - began, 1)
    return Result(kind=kind, what=what, ended=ended, seconds=seconds, wrong=wrong)


Kind = Callable[[Chance], Result]
