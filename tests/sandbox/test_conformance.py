"""What every backend must do, whatever is behind it: one suite, run against each of them."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sandbox import clearance, doctor
from sandbox.backends import NAMES, Backend, bubblewrap, get_backend
from sandbox.backends import docker as docker_backend
from sandbox.backends.base import Purpose
from sandbox.draft import lay_out
from sandbox.errors import InfrastructureError, MechanismFailure
from sandbox.host import Limits, MechanismHost, run_unit_tests
from sandbox.image import ROOT
from sandbox.posture import problems
from sandbox.report import Outcome
from sandbox.screen import screen
from sandbox.testing import make_view
from sandbox.wire import WorkerCalls
from tests.sandbox.leftovers import left_of

pytestmark = pytest.mark.engine

HEAD = b"import os, sys, time\nfrom sandbox.mechanism import Candidate, Mechanism\n"
NULL = HEAD + b"class Null(Mechanism): pass\n"
MODULES: dict[str, ModuleType] = {"docker": docker_backend, "bubblewrap": bubblewrap}


def proposing(body: str) -> bytes:
    """A mechanism whose propose runs `body`."""
    lines = "\n".join(f"        {line}" for line in body.splitlines())
    code = f"class M(Mechanism):\n    def propose(self, view, count):\n{lines}\n        return []\n"
    return HEAD + code.encode()


@pytest.fixture(scope="module", params=NAMES)
def backend(request: pytest.FixtureRequest) -> Backend:
    return get_backend(request.param, progress=lambda text: sys.stderr.write(f"{text}\n"))


@pytest.fixture(autouse=True)
def verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests make of an engine is not what later tests should be told of it."""
    monkeypatch.setattr(clearance, "_bad", {})


@pytest.fixture
def start(backend: Backend) -> Iterator[Callable[..., MechanismHost]]:
    hosts: list[MechanismHost] = []

    def begin(source: bytes, limits: Limits | None = None) -> MechanismHost:
        host = MechanismHost.start(
            backend,
            source,
            name="draft",
            limits=limits or Limits.screening(),
            purpose="test",
        )
        hosts.append(host)
        return host

    yield begin
    for host in hosts:
        host.close()
        host.close()


@pytest.mark.parametrize("purpose", list(Purpose))
def test_the_worker_measures_the_whole_posture(backend: Backend, purpose: Purpose) -> None:
    limits = Limits.screening()
    tests = purpose is Purpose.TESTS
    channel = backend.start(purpose=purpose, limits=limits, label="test")
    calls = WorkerCalls(channel, limits)
    try:
        seen = calls.self_report()
    finally:
        calls.close()
    assert problems(seen, writable=("/tmp",) if tests else ()) == []
    assert seen["hostname"] == "sandbox"
    fsize = limits.tmp_bytes if tests else 0
    assert seen["limits"] == {
        "nofile": [256, 256],
        "core": [0, 0],
        "fsize": [fsize, fsize],
        "cpu": [limits.cpu_seconds, limits.cpu_seconds + 1],
    }
    assert channel.posture["backend"] == backend.name
    assert channel.posture["image_id"] == backend.image_id
    json.dumps(channel.posture, allow_nan=False)


def test_a_conversation_with_an_ask(start: Callable[..., MechanismHost]) -> None:
    host = start(proposing("return view.ask('try', count)"))
    assert host.hooks == {"propose"}
    assert host.propose(make_view(prior=lambda _, count: []), 3, seed=1) == []
    assert host.counts["ask_calls"] == 1
    assert host.state() == {}


def test_prints_are_kept_apart_from_answers(start: Callable[..., MechanismHost]) -> None:
    host = start(proposing("print('said')\nsys.stderr.write('muttered\\n')"))
    assert host.propose(make_view(), 1, seed=0) == []
    deadline = time.monotonic() + 120  # it travels beside the answer and may come later
    while not {"said", "muttered"} <= set(host.output.split()):
        assert time.monotonic() < deadline, host.output
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("body", "rules"),
    [
        ("while True: pass", {"TIMEOUT"}),
        ("time.sleep(100)", {"TIMEOUT"}),
        ("import signal; signal.signal(15, signal.SIG_IGN); time.sleep(100)", {"TIMEOUT"}),
        ("x = bytearray(1 << 30)\nx[::4096] = b'x' * (1 << 18)", {"OOM"}),
        ("while True: print('x' * 10000)", {"OUTPUT_LIMIT"}),
        ("os._exit(0)", {"CRASHED"}),
        ("os.abort()", {"CRASHED"}),
        ("import ctypes; ctypes.string_at(0)", {"CRASHED"}),
        ("for n in range(3, 20): os.write(n, b'x' * 100)", {"PROTOCOL_ERROR", "RAISED"}),
        ("os.closerange(0, 50); time.sleep(100)", {"TIMEOUT", "PROTOCOL_ERROR"}),
    ],
)
def test_every_bad_end_has_its_name(
    backend: Backend, start: Callable[..., MechanismHost], body: str, rules: set[str]
) -> None:
    host = start(proposing(body), Limits(call_seconds=2 if "TIMEOUT" in rules else 60))
    with pytest.raises(MechanismFailure) as caught:
        host.propose(make_view(), 1, seed=0)
    assert caught.value.rule in rules
    host.close()
    assert left_of(backend) == []


def test_threads_are_bounded_and_no_process_is_made(start: Callable[..., MechanismHost]) -> None:
    host = start(proposing("os.fork()"))
    with pytest.raises(MechanismFailure, match="PermissionError"):
        host.propose(make_view(), 1, seed=0)
    assert host.state() == {}, "an exception ends no worker"


TMP_TEST = b"""
import os, pytest, resource
def test_there_is_little_room_and_nothing_starts():
    program = os.open("/tmp/program", os.O_CREAT | os.O_WRONLY, 0o700)
    os.write(program, b"#!/usr/local/bin/python3\\n")
    os.close(program)
    with pytest.raises(PermissionError):
        os.execv("/tmp/program", ["program"])
    with pytest.raises(OSError):
        with open("/tmp/big", "wb") as file:
            for _ in range(40):
                file.write(b"x" * (1 << 20)); file.flush()
    with pytest.raises(OSError):
        open("/opt/sandbox/x", "w")
"""


def test_unit_tests_have_a_small_place_to_write(backend: Backend) -> None:
    files = {"mechanisms/null.py": NULL, "tests/test_null.py": TMP_TEST}
    run = run_unit_tests(
        backend, lay_out(files, require_test=True), limits=Limits(output_bytes=1 << 20)
    )
    assert (run.passed, run.collected, run.failures) == (True, 1, ())


CLIENT = """
import os, sys
from sandbox import reaper
from sandbox.host import Limits, MechanismHost, get_backend
host = MechanismHost.start(get_backend(sys.argv[1]), sys.stdin.buffer.read(), name="draft",
    limits=Limits.production(), purpose="test")
print(reaper.me(), flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_killed_client_leaves_nothing_that_is_not_reaped(backend: Backend) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, backend.name],
        input=NULL,
        cwd=ROOT,
        check=False,
        capture_output=True,
    )
    assert done.returncode == -9, done.stderr.decode()
    owner = done.stdout.decode().strip()
    deadline = time.monotonic() + 120
    while left := (backend.reap(), left_of(backend, owner))[1]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


# --- turning one control off ---


def loosen_docker(flags: dict[str, Any], control: str) -> None:
    host = flags["host_config"]
    if control == "network":
        host["network_mode"] = "host"
        del host["dns"], host["dns_search"]
    elif control == "memory":
        host["mem_limit"] = host["memswap_limit"] = 8 << 30
    elif control == "user":
        flags["user"] = "64001:64001"


def loosen_bubblewrap(flags: dict[str, Any], control: str) -> None:
    if control == "network":
        flags["network"] = "host"
    elif control == "memory":
        flags["memory_bytes"] = 8 << 30
    elif control == "user":
        flags["uid"] = 64001


LOOSEN = {"docker": loosen_docker, "bubblewrap": loosen_bubblewrap}
NAMED = {
    "seccomp": "fork is refused (seccomp)",
    "network": "it sees the network devices",
    "memory": "an allocation of 4 GiB is stopped (memory)",
    "user": "it runs as 64001:64001, not as 64000:64000",
}


@pytest.mark.parametrize(
    "control", [pytest.param(c, marks=pytest.mark.slow if c == "memory" else ()) for c in NAMED]
)
def test_a_control_that_is_off_is_named_and_nothing_is_screened(
    backend: Backend, control: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = MODULES[backend.name]
    monkeypatch.setenv("ESCAPEMENT_SANDBOX_CACHE", str(tmp_path / "cache"))
    original = module.posture_flags

    def loose(purpose: Purpose, limits: Limits) -> dict[str, Any]:
        flags = copy.deepcopy(original(purpose, limits))
        LOOSEN[backend.name](flags, control)
        return flags

    if control == "seccomp":
        allow = tmp_path / "seccomp.json"
        allow.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
        monkeypatch.setattr(module, "SECCOMP", allow)
    else:
        monkeypatch.setattr(module, "posture_flags", loose)
    wrong = [c for c in doctor.examine(backend=backend) if not c.ok]
    said = "\n".join(f"{c.control}: {c.what_to_do}" for c in wrong)
    assert NAMED[control] in said
    problem = clearance.record(backend, wrong)
    assert "The sandbox does not hold" in problem

    files = {"mechanisms/null.py": NULL}
    report = screen(lay_out(files, require_test=False), backend=backend, static=False)
    assert report.outcome is Outcome.COULD_NOT_LOOK
    [finding] = report.findings
    assert "The sandbox does not hold, so nothing is run in it" in finding.message
    with pytest.raises(InfrastructureError, match="does not hold"):
        clearance.require(backend)


def test_every_control_holds_and_the_verdict_is_kept(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ESCAPEMENT_SANDBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(clearance, "GOOD_SECONDS", 3600)
    clearance.require(backend)
    monkeypatch.setattr(doctor, "examine", lambda **_: pytest.fail("it was kept"))
    clearance.require(backend)
    [kept] = (tmp_path / "cache").glob("doctor-*.json")
    whole = json.loads(kept.read_text())
    aged = [json.dumps({**whole, "at": whole["at"] + hours * 3600}) for hours in (-2, 2)]
    for broken in ("{}", "", "[1]", '{"key": 1}', *aged):
        kept.write_text(broken)
        monkeypatch.setattr(doctor, "examine", lambda **_: [doctor.Control("x", False, "mend x")])
        monkeypatch.setattr(clearance, "BAD_SECONDS", 0)
        with pytest.raises(InfrastructureError, match="mend x"):
            clearance.require(backend)
