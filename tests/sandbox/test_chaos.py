"""Clients and workers that are killed at random moments of a screening.

Whatever is killed, a screening ends with one report or with none, in the right state, and nothing
of it stays. (Engines and `manage.py work` are killed by `scripts/chaos`.)
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from sandbox import clearance
from sandbox.backends import Backend, get_backend
from sandbox.backends.base import Channel
from sandbox.draft import draft_from_files
from sandbox.image import ROOT
from sandbox.report import Draft, Outcome
from sandbox.screen import CHECKS, screen
from tests.sandbox.leftovers import left_of

pytestmark = [pytest.mark.engine, pytest.mark.slow]
# How often; a long run sets more: ESCAPEMENT_CHAOS=50
TIMES = int(os.environ.get("ESCAPEMENT_CHAOS", "6"))
WHOLE_SECONDS = 2.0  # about what one screening takes: where the random moments lie
END_SECONDS = 120.0

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


@pytest.fixture(scope="module", params=["docker", "bubblewrap"])
def backend(request: pytest.FixtureRequest) -> Backend:
    found = get_backend(request.param, progress=lambda text: sys.stderr.write(f"{text}\n"))
    clearance.require(found)
    return found


def tabu() -> Draft:
    paths = ("mechanisms/tabu.py", "tests/test_tabu.py")
    return draft_from_files({p: (ROOT / "mechanisms_repo" / p).read_bytes() for p in paths})


def wait_until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + END_SECONDS
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.mark.parametrize("seed", range(TIMES))
def test_a_client_that_is_killed_gives_no_verdict_and_leaves_nothing(
    backend: Backend, seed: int
) -> None:
    moment = random.Random(f"{backend.name}{seed}").uniform(0, WHOLE_SECONDS)
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, backend.name],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdin
    assert client.stdout
    json.dump({path: data.decode() for path, data in tabu().files.items()}, client.stdin)
    client.stdin.close()
    owner = client.stdout.readline().strip()
    assert owner, "it did not even begin"
    time.sleep(moment)
    client.send_signal(signal.SIGKILL)
    client.wait()
    said = client.stdout.read().split()
    client.stdout.close()
    assert said in ([], ["VERDICT", "passed"]), "a whole verdict or none"

    def gone() -> bool:
        backend.reap()  # the engine may still be starting what the dead one asked for
        return left_of(backend, owner) == []

    wait_until(gone)


class Recording:
    """The real backend; remembers the workers that it started."""

    def __init__(self, backend: Backend) -> None:
        self.name = backend.name
        self.backend = backend
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


@pytest.mark.parametrize("seed", range(TIMES))
def test_a_worker_that_is_killed_never_makes_a_pass_and_leaves_nothing(
    backend: Backend, seed: int
) -> None:
    chance = random.Random(f"worker {backend.name}{seed}")
    recording, over = Recording(backend), threading.Event()
    killed: list[Channel] = []

    def killer() -> None:
        over.wait(chance.uniform(0, WHOLE_SECONDS / 2))
        while not over.is_set():
            if recording.channels:
                victim = chance.choice(recording.channels)
                killed.append(victim)
                victim.kill()
                return
            over.wait(0.01)

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        report = screen(tabu(), backend=recording)
    finally:
        over.set()
        thread.join()
    assert [c.name for c in report.checks] == list(CHECKS)
    rules = {f.rule for f in report.findings if f.severity == "error"}
    if report.outcome is Outcome.COULD_NOT_LOOK:
        assert rules == {"could-not-look"}
    else:
        assert report.outcome is Outcome.PASSED  # it was killed after its last answer
        assert rules == set()
    assert left_of(backend) == []


def test_without_chaos_it_passes(backend: Backend) -> None:
    assert screen(tabu(), backend=backend).outcome is Outcome.PASSED
