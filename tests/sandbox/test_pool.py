"""Workers that are kept ready: each given out once, bounded, reaped, and nothing stays."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox import clearance, pool
from sandbox.aside import Aside
from sandbox.backends import Backend, get_backend
from sandbox.backends.base import Channel, Purpose
from sandbox.draft import lay_out
from sandbox.errors import InfrastructureError
from sandbox.host import Limits, MechanismHost
from sandbox.image import ROOT
from sandbox.pool import WarmBackend
from sandbox.report import Outcome
from sandbox.screen import screen
from tests.sandbox.leftovers import left_of

pytestmark = pytest.mark.engine
NULL = b"from sandbox.mechanism import Mechanism\nclass Null(Mechanism): pass\n"
SLOW = b"def test_slow():\n    while True:\n        pass\n"


class Counting:
    """The real backend; counts, and refuses when told to."""

    def __init__(self, backend: Backend) -> None:
        self.name = backend.name
        self.backend = backend
        self.channels: list[Channel] = []
        self.broken = False

    @property
    def image_id(self) -> str:
        return self.backend.image_id

    @property
    def fingerprint(self) -> str:
        return self.backend.fingerprint

    def start(self, **arguments: Any) -> Channel:
        if self.broken:
            raise InfrastructureError("the engine has gone")
        self.channels.append(self.backend.start(**arguments))
        return self.channels[-1]

    def reap(self) -> list[str]:
        return self.backend.reap()


@pytest.fixture(scope="module")
def real() -> Backend:
    return get_backend("bubblewrap", progress=lambda text: sys.stderr.write(f"{text}\n"))


@pytest.fixture
def counting(real: Backend) -> Counting:
    return Counting(real)


@pytest.fixture
def warm(counting: Counting) -> Iterator[WarmBackend]:
    with WarmBackend(counting, spare={Purpose.MECHANISM: 1}) as backend:
        assert backend.wait_until_ready(240)
        yield backend


def host(backend: Backend, limits: Limits | None = None) -> MechanismHost:
    return MechanismHost.start(
        backend, NULL, name="draft", limits=limits or Limits.screening(), purpose="test"
    )


def test_a_worker_is_given_out_once(counting: Counting, warm: WarmBackend) -> None:
    with host(warm) as one:
        assert one.posture["warm"] is True
        assert one.posture["self_report"]["uid"] == 64000
        assert warm.wait_until_ready(240)
        with host(warm) as two:
            assert two.posture["cgroup"] != one.posture["cgroup"]
            assert (one.state(), two.state()) == ({}, {})


def test_other_limits_and_purposes_are_started_cold(warm: WarmBackend) -> None:
    with host(warm, Limits(memory_bytes=300 << 20)) as other:
        assert "warm" not in other.posture
    channel = warm.start(purpose=Purpose.TESTS, limits=Limits.screening())
    assert "warm" not in channel.posture
    channel.close()


def test_a_worker_that_died_while_it_waited_is_not_given_out(
    counting: Counting, warm: WarmBackend
) -> None:
    counting.channels[0].kill()
    assert not counting.channels[0].exit().running  # a moment later
    with host(warm) as alive:
        assert alive.state() == {}


def test_an_old_worker_is_ended(
    counting: Counting, warm: WarmBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "IDLE_SECONDS", 0.0)
    with host(warm) as fresh:
        assert "warm" not in fresh.posture


def test_an_engine_that_goes_is_told_to_whoever_asks(counting: Counting, warm: WarmBackend) -> None:
    counting.broken = True
    host(warm).close()  # was ready
    with pytest.raises(InfrastructureError, match="has gone"):
        host(warm)
    counting.broken = False
    host(warm).close()
    assert warm.wait_until_ready(240)


def test_nothing_stays_after_close(counting: Counting) -> None:
    with WarmBackend(counting, spare={Purpose.MECHANISM: 2, Purpose.TESTS: 1}) as backend:
        assert backend.wait_until_ready(240)
    backend.close()
    assert len(counting.channels) == 3
    for channel in counting.channels:
        group = counting.backend._groups.parents["memory"] / channel.posture["cgroup"]["name"]  # type: ignore[attr-defined]
        assert not group.exists()


def test_a_bound_on_what_is_kept(real: Backend) -> None:
    with pytest.raises(ValueError, match="at most 32"):
        WarmBackend(real, spare={Purpose.MECHANISM: 33})


@pytest.mark.parametrize("name", ["docker", "bubblewrap"])
def test_a_screening_that_is_cancelled_stops_in_the_middle_of_its_tests(name: str) -> None:
    backend = get_backend(name, progress=lambda text: sys.stderr.write(f"{text}\n"))
    clearance.require(backend)
    asked = threading.Event()
    began: list[float] = []

    def progress(words: str) -> None:
        if words == "checking: unit_tests":
            began.append(time.monotonic())
            asked.set()

    files = {"mechanisms/null.py": NULL, "tests/test_null.py": SLOW}
    report = screen(
        lay_out(files, require_test=True),
        backend=backend,
        limits=Limits(call_seconds=100),  # patient with the tests: three minutes
        progress=progress,
        cancelled=asked.is_set,
    )
    assert time.monotonic() - began[0] < 150, "it waited for the tests to end by themselves"
    assert report.outcome is Outcome.COULD_NOT_LOOK
    done = report.check("unit_tests")
    assert done is not None
    assert done.outcome is Outcome.SKIPPED
    assert left_of(backend) == []


def test_a_stopped_job_gets_no_further_worker(real: Backend) -> None:
    begun, gone = threading.Event(), threading.Event()
    seen: list[str] = []

    def job(backend: Backend) -> None:
        begun.set()
        gone.wait(30)
        try:
            backend.start(purpose=Purpose.MECHANISM, limits=Limits.screening())
        except InfrastructureError as error:
            seen.append(str(error))

    aside = Aside(real, job)
    with aside:
        begun.wait(30)
        aside._tracked.stop()
        gone.set()
    assert seen == ["It was stopped before its worker was there."]


def test_a_killed_process_takes_what_it_kept_ready_along(real: Backend) -> None:
    code = "import os\nfrom sandbox import reaper\nfrom sandbox.backends import get_backend\n"
    code += "from sandbox.pool import WarmBackend\n"
    code += "w = WarmBackend(get_backend('bubblewrap'))\nassert w.wait_until_ready(240)\n"
    code += "print(reaper.me(), flush=True)\nos.kill(os.getpid(), 9)\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True)
    assert done.returncode == -9, done.stderr.decode()
    real.reap()
    assert left_of(real, done.stdout.decode().strip()) == []
