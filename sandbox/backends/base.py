"""The border between the host side and whatever starts a sandbox: Backend and Channel.

A backend starts one worker under the full posture and gives a channel to it; it knows nothing of
mechanisms or frames. Errors of the engine are `InfrastructureError`, never a candidate's fault.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from sandbox.limits import Limits


class Stream(StrEnum):
    """Where bytes of a worker come from."""

    OUT = "out"  # frames
    ERR = "err"  # prints and tracebacks


class Purpose(StrEnum):
    """What a worker is for; only unit tests get a writable place."""

    MECHANISM = "mechanism"
    TESTS = "tests"


class Switch(StrEnum):
    """One control that a drill leaves out, to see that the doctor notices. Nothing but the doctor
    ever runs in a sandbox with one of them off."""

    SECCOMP = "seccomp"
    NETWORK = "network"
    MEMORY = "memory"
    USER = "user"
    CAPABILITIES = "capabilities"
    PROCESSES = "processes"
    FILES = "files"


DRILL_USER = 64001
DRILL_MEMORY_BYTES = 6 << 30  # above what the probe takes, not above what a machine has
DRILL_PROCESSES = 4096

Sink = Callable[[Stream, bytes], None]


class WorkerGone(Exception):
    """The worker's streams ended; `Channel.exit` says how it died."""


@dataclass(frozen=True, kw_only=True)
class Exit:
    """How a worker ended; `running` if it did not, though its streams are closed."""

    code: int
    oom_killed: bool
    running: bool = False


class Channel(Protocol):
    """Bytes to and from one running worker."""

    @property
    def posture(self) -> dict[str, Any]:
        """Image id, backend, runtime and flags that this worker was started with."""

    def exchange(
        self, data: bytes, *, sink: Sink, done: Callable[[], bool], deadline: float
    ) -> None:
        """Write `data` and hand what is read to `sink` until all is written and `done()`.

        `deadline` is a time of `time.monotonic`. Raises TimeoutError, WorkerGone, and whatever
        `sink` raises.
        """

    def require_way(self) -> None:
        """Raise InfrastructureError unless what carries the bytes answers now: the silence of a
        hung engine is not the worker's."""

    def exit(self) -> Exit:
        """How the worker ended; waits shortly for the engine to notice."""

    def kill(self) -> None:
        """End the worker, from any thread: whoever talks to it sees WorkerGone, and closes."""

    def close(self) -> None:
        """Kill and remove the worker. May be called twice; afterwards nothing is left of it."""


class Backend(Protocol):
    """Something that can start sandbox workers."""

    name: str

    @property
    def image_id(self) -> str:
        """The exact image that workers run."""

    @property
    def fingerprint(self) -> str:
        """Everything that decides whether the posture holds: engine, kernel, image, flags."""

    def start(self, *, purpose: Purpose, limits: Limits, label: str = "") -> Channel:
        """Start one worker. Raises InfrastructureError with the fix."""

    def reap(self) -> list[str]:
        """Remove what dead owners on this machine left behind; the ids of what was removed."""
