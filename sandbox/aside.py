"""A job with workers of its own, in a thread beside another one, that can be stopped at once.

Not a scheduler: one job, and what it started is killed when it is no longer wanted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from typing import Generic, Self, TypeVar

from sandbox.backends.base import Backend, Channel, Purpose
from sandbox.errors import InfrastructureError
from sandbox.limits import Limits

T = TypeVar("T")
TICK_SECONDS = 0.1


class Aside(Generic[T]):
    """Runs `job` with a backend whose workers end when this is left. A context manager."""

    def __init__(self, backend: Backend, job: Callable[[Backend], T]) -> None:
        self._tracked = _Tracked(backend)
        self._job = job
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="aside")
        self._future: Future[T] | None = None

    def __enter__(self) -> Self:
        self._future = self._thread.submit(self._job, self._tracked)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._future is None or not self._future.done():
                self._tracked.stop()
        finally:
            self._thread.shutdown()

    def result(self, tick: Callable[[], None]) -> T:
        """What the job gives, or raises. `tick` is called often meanwhile and may raise to stop."""
        if self._future is None:
            raise RuntimeError("it was not entered")
        return wait(self._future, tick)


def wait(future: Future[T], tick: Callable[[], None]) -> T:
    """What comes of `future`, or raise it. `tick` is called often meanwhile; it may raise."""
    while True:
        try:
            return future.result(TICK_SECONDS)
        except NotYet:
            if future.done():
                raise  # the job's own
            tick()


class _Tracked:
    """A backend that remembers what it started, to end it from another thread."""

    def __init__(self, backend: Backend) -> None:
        self.name = backend.name
        self._backend = backend
        self._channels: list[Channel] = []
        self._lock = threading.Lock()
        self._stopped = False

    @property
    def image_id(self) -> str:
        return self._backend.image_id

    @property
    def fingerprint(self) -> str:
        return self._backend.fingerprint

    def start(self, *, purpose: Purpose, limits: Limits, label: str = "") -> Channel:
        channel = self._backend.start(purpose=purpose, limits=limits, label=label)
        with self._lock:
            self._channels.append(channel)
            stopped = self._stopped
        if stopped:
            channel.close()
            raise InfrastructureError("It was stopped before its worker was there.")
        return channel

    def reap(self) -> list[str]:
        return self._backend.reap()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            channels = list(self._channels)
        failed: list[InfrastructureError] = []
        for channel in channels:
            try:
                channel.kill()
            except InfrastructureError as error:  # the others are to end all the same
                failed.append(error)
        if failed:
            raise failed[0]
