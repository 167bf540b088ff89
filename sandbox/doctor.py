"""Tries the forbidden things for real in a sandbox worker, and says of each control if it holds.

The same door as for a draft: a probe is loaded as bytes, its answers come over frames, and the
limits are those of a screening. While one control does not hold, no foreign code may be accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sandbox.backends import get_backend
from sandbox.backends.base import Backend, Purpose
from sandbox.errors import InfrastructureError, MechanismFailure, Rule
from sandbox.host import MechanismHost
from sandbox.limits import Limits
from sandbox.mechanism import Knob, Space, Trial, View
from sandbox.posture import measure
from sandbox.wire import WorkerCalls

PROBE = Path(__file__).with_name("doctor_probe.py")
WORKER = {Purpose.MECHANISM: "a mechanism", Purpose.TESTS: "its tests"}
MOST_PROCESSES = 256  # whatever a runtime needs for itself
CALL_SECONDS = 30  # a busy machine is no control that fails
_POSTURE = (
    "The posture of sandbox/backends is not applied: see the engine's version, its runtime and "
)
_POSTURE += "`docker info` (or `bwrap --version`), and accept no drafts until this holds."
_BY_SECCOMP = ("system call", "socket", "fork", "start a program")
_FLOODS = {
    "memory": (Rule.OOM, "an allocation of 4 GiB is stopped (memory)"),
    "time": (Rule.TIMEOUT, "an endless loop is stopped (time)"),
    "output": (Rule.OUTPUT_LIMIT, "a flood of output is stopped (output)"),
}


class Control(NamedTuple):
    """One control: what it is, whether it holds, and what to do if not ("" if it does)."""

    control: str
    ok: bool
    what_to_do: str


def examine(
    progress: Callable[[str], None] | None = None, *, backend: Backend | None = None
) -> list[Control]:
    """Every control, tried now, on `backend` or the one that is set. Never raises for what it
    finds: a missing engine is a finding."""
    tell = progress or (lambda _: None)
    found: list[Control] = []
    tell("looking for the engine and the image")
    try:
        backend = backend or get_backend()
        found.append(Control(f"{backend.name} answers and has {backend.image_id}", True, ""))
    except InfrastructureError as error:
        return [Control("a sandbox engine answers and has the image", False, str(error))]
    for what, look in (
        ("reading the worker's self-report", _measured),
        ("trying what is forbidden", _tried),
        ("filling memory, time and output", _flooded),
    ):
        tell(what)
        try:
            found.extend(look(backend))
        except (InfrastructureError, MechanismFailure) as error:
            found.append(Control(what, False, f"It could not be tried: {error}"))
    return found


def _measured(backend: Backend) -> Iterator[Control]:
    limits = Limits.screening()
    for purpose, writable in ((Purpose.MECHANISM, ()), (Purpose.TESTS, ("/tmp",))):  # noqa: S108  # nosec B108
        channel = backend.start(purpose=purpose, limits=limits, label="doctor")
        calls = WorkerCalls(channel, limits)
        try:
            measured = measure(calls.self_report(), writable=writable)
        finally:
            calls.close()
        for name, wrong in measured.items():
            to_do = f"{wrong[:500]}. {_POSTURE}" if wrong else ""
            yield Control(f"{name} (worker for {WORKER[purpose]})", not wrong, to_do)


def _tried(backend: Backend) -> Iterator[Control]:
    limits = Limits(call_seconds=CALL_SECONDS)
    with _start(backend, limits) as host:
        answers = host.state()
        most = min(MOST_PROCESSES, host.posture["flags"]["processes"])
    threads = answers.pop("threads", None)
    bounded = type(threads) is int and 0 < threads <= most
    name = f"threads are bounded by {most} (processes)"
    yield Control(name, bounded, "" if bounded else f"{threads} were started. {_POSTURE}")
    if not answers:
        yield Control("forbidden things are tried", False, "The probe tried nothing.")
    for attempt, answer in sorted(answers.items()):
        held = answer == "refused"
        by = " (seccomp)" if attempt.startswith(_BY_SECCOMP) else ""
        yield Control(f"{attempt} is refused{by}", held, "" if held else f"{answer}. {_POSTURE}")


def _flooded(backend: Backend) -> Iterator[Control]:
    for what, (rule, name) in _FLOODS.items():
        limits = Limits(call_seconds=2 if what == "time" else CALL_SECONDS)
        with _start(backend, limits) as host:
            got = "nothing stopped it"
            try:
                host.propose(_view(what), 1, seed=0)
            except MechanismFailure as error:
                got = error.rule
        held = got == rule
        yield Control(name, held, "" if held else f"Expected {rule}, saw {got}. {_POSTURE}")


def _start(backend: Backend, limits: Limits) -> MechanismHost:
    return MechanismHost.start(
        backend, PROBE.read_bytes(), name="doctor_probe", limits=limits, purpose="doctor"
    )


def _view(what: str) -> View:
    config: dict[str, Any] = {"TRY": what}
    trial = Trial(number=0, config=config, changes={}, metric=1.0, status="kept")
    knob = Knob(kind="choice", default=what, choices=tuple(_FLOODS))
    return View(trace=(trial,), best=trial, space=Space({"TRY": knob}))
