"""A few workers started ahead of time: posture checked, nothing loaded, each given out once.

`WarmBackend` is a backend in front of another one. What it has not ready is started cold, by the
same door; a worker that was given out never comes back, and one of an earlier posture is never
given out (each is kept with the fingerprint that it was started under). After `close` none starts.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from sandbox.backends.base import Backend, Channel, Exit, Purpose, Sink, WorkerGone
from sandbox.errors import InfrastructureError, MechanismFailure
from sandbox.limits import Limits
from sandbox.posture import require_posture, writable
from sandbox.wire import WorkerCalls

# A worker is not kept longer, and none is started where nobody asked for one this long.
IDLE_SECONDS = 600.0
# A screening is not slowed down by starts for the next one: they wait until it took what it needs.
QUIET_SECONDS = 1.0
# How long an answer to "is this still the same sandbox?" serves: not for two screenings.
FINGERPRINT_SECONDS = 0.5
# What one screening takes: the contract, its second look with the replay; the draft's own tests.
SPARE = {Purpose.MECHANISM: 2, Purpose.TESTS: 1}
MAX_ENDING = 16
MAX_SPARE = 32


@dataclass
class _Ready:
    channel: WarmChannel
    fingerprint: str
    since: float = field(default_factory=time.monotonic)


class WarmChannel:
    """A channel whose worker has reported on itself already; everything else is passed on."""

    def __init__(
        self, channel: Channel, seen: dict[str, Any], retire: Callable[[Channel], None]
    ) -> None:
        self._channel = channel
        self._retire = retire
        self._closed = False
        self.posture = {**channel.posture, "self_report": seen, "warm": True}

    def exchange(
        self, data: bytes, *, sink: Sink, done: Callable[[], bool], deadline: float
    ) -> None:
        """As the worker's own."""
        if self._closed:
            raise WorkerGone
        self._channel.exchange(data, sink=sink, done=done, deadline=deadline)

    def require_way(self) -> None:
        """As the worker's own."""
        self._channel.require_way()

    def exit(self) -> Exit:
        """As the worker's own."""
        return self._channel.exit()

    def kill(self) -> None:
        """As the worker's own."""
        self._channel.kill()

    def close(self) -> None:
        """Have the worker killed and removed at once, by the pool's thread."""
        if not self._closed:
            self._closed = True
            self._retire(self._channel)

    @property
    def unwrapped(self) -> Channel:
        """The worker's own channel."""
        return self._channel

    def is_alive(self, limits: Limits) -> bool:
        """Whether it still answers: asked, because a death takes a moment to be seen."""
        try:
            WorkerCalls(self._channel, limits).self_report()
        except (MechanismFailure, InfrastructureError):
            return False  # a cold start follows, and raises what is wrong with the engine, if so
        return True


class WarmBackend:
    """A backend with workers ready. A context manager; `close` kills what was not given out."""

    def __init__(
        self,
        backend: Backend,
        *,
        limits: Limits | None = None,
        spare: Mapping[Purpose, int] = SPARE,
    ) -> None:
        if sum(spare.values()) > MAX_SPARE:
            raise ValueError(f"at most {MAX_SPARE} workers can be kept ready")
        self.name = backend.name
        self._backend = backend
        self._limits = limits or Limits.screening()
        self._spare = dict(spare)
        self._ready: dict[Purpose, deque[_Ready]] = {p: deque() for p in Purpose}
        self._ending: deque[Channel] = deque()
        self._seen: tuple[float, str] = (-FINGERPRINT_SECONDS, "")
        self._taken_at = time.monotonic() - QUIET_SECONDS
        self._changed = threading.Condition()
        self._closed = False
        self._broken = False
        self._thread = threading.Thread(target=self._keep, name="warm-pool", daemon=True)
        self._thread.start()

    @property
    def image_id(self) -> str:
        """The exact image that workers run."""
        return self._backend.image_id

    @property
    def fingerprint(self) -> str:
        """That of the backend behind, asked for now."""
        found = self._backend.fingerprint
        self._seen = (time.monotonic(), found)
        return found

    def start(self, *, purpose: Purpose, limits: Limits, label: str = "") -> Channel:
        """One that is ready, else a cold one. Raises InfrastructureError."""
        while limits == self._limits:
            with self._changed:
                self._broken = False  # whoever asks gets the true error below; so try again
                self._taken_at = time.monotonic()
                ready = self._ready[purpose].popleft() if self._ready[purpose] else None
                self._changed.notify()
            if ready is None:
                break
            try:
                if self._may_be_used(ready):
                    return ready.channel
            except BaseException:
                ready.channel.close()
                raise
            ready.channel.close()
        return self._backend.start(purpose=purpose, limits=limits, label=label)

    def reap(self) -> list[str]:
        """What dead owners left; the workers kept ready here have a living one."""
        return self._backend.reap()

    def wait_until_ready(self, seconds: float) -> bool:
        """Whether all that is to be kept is there within `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: self._missing() is None, seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill and remove every worker that was not given out, and what is being ended."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        left = [
            *self._ending,
            *(r.channel.unwrapped for queue in self._ready.values() for r in queue),
        ]
        self._ending.clear()
        for queue in self._ready.values():
            queue.clear()
        for channel in left:
            channel.close()

    def _retire(self, channel: Channel) -> None:
        """End a worker that was given out: in the thread, or here where there are too many."""
        with self._changed:
            if not self._closed and len(self._ending) < MAX_ENDING:
                self._ending.append(channel)
                self._changed.notify()
                return
        channel.close()

    def _keep(self) -> None:
        """End what was used or is old, and start what is missing, until closed."""
        while True:
            with self._changed:
                if self._closed:
                    return
                old: list[Channel] = self._take_old()
                quiet_in = self._taken_at + QUIET_SECONDS - time.monotonic()
                purpose = None if self._broken else self._missing()
                if not old and (purpose is None or quiet_in > 0):
                    self._changed.wait(IDLE_SECONDS / 10 if purpose is None else quiet_in)
                    continue
            try:
                for channel in old:
                    channel.close()
                if not old and purpose is not None:
                    self._add(purpose)
            except (InfrastructureError, MechanismFailure):
                # Not passed over: the next start goes to the engine itself and raises its error.
                with self._changed:
                    self._broken = True

    def _may_be_used(self, ready: _Ready) -> bool:
        same = ready.fingerprint == self._lately()
        return same and self._is_fresh(ready) and ready.channel.is_alive(self._limits)

    def _lately(self) -> str:
        at, found = self._seen
        return found if time.monotonic() - at < FINGERPRINT_SECONDS else self.fingerprint

    def _add(self, purpose: Purpose) -> None:
        fingerprint = self._lately()
        channel = self._backend.start(purpose=purpose, limits=self._limits, label="warm")
        try:
            calls = WorkerCalls(channel, self._limits)
            seen = calls.self_report()
            require_posture(seen, writable=writable(purpose))
            if purpose is Purpose.TESTS:
                calls.request({"op": "prepare_tests"}, seconds=self._limits.start_seconds)
        except BaseException:
            with suppress(InfrastructureError):
                channel.close()
            raise
        with self._changed:
            warm = WarmChannel(channel, seen, self._retire)
            self._ready[purpose].append(_Ready(warm, fingerprint))
            self._changed.notify_all()

    def _missing(self) -> Purpose | None:
        if time.monotonic() - self._taken_at > IDLE_SECONDS:
            return None
        return next((p for p, n in self._spare.items() if len(self._ready[p]) < n), None)

    def _take_old(self) -> list[Channel]:
        found = list(self._ending)
        self._ending.clear()
        for queue in self._ready.values():
            while queue and not self._is_fresh(queue[0]):
                found.append(queue.popleft().channel.unwrapped)
        return found

    def _is_fresh(self, ready: _Ready) -> bool:
        return time.monotonic() - ready.since < IDLE_SECONDS
