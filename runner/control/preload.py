"""The next mechanism, made ready while a trial is being trained, so that the swap at the boundary
is short.

Nothing is swapped, attested or refused here: what is prepared has been verified, loaded and tried,
and was never asked for a decision. A preparation that fails proves nothing (the training beside it
may have taken all the time there was): the boundary loads again, and only that counts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from typing import Any, TypeVar

from runner.background import in_background
from runner.control.hotload import Loader, LoadRefused, Prepared
from runner.loop.decisions import Host, Running
from runner.protocol import Desired
from runner.storage.journal import Journal, derive
from sandbox.errors import InfrastructureError
from sandbox.mechanism import View

MAX_AT_ONCE = 2
CLOSE_SECONDS = 5.0

Key = tuple[object, ...]
T = TypeVar("T")


def key_of(desired: Desired) -> Key:
    """What is to run, without what may change beside it (stops, library, checkpoint)."""
    return (
        *(desired.target, desired.version, desired.mechanism, desired.commit, desired.digest),
        *(desired.source, desired.signature, tuple(desired.locks)),
    )


class Preload:
    """Loads mechanisms for one run, and keeps at most one prepared. `close` it: no worker that
    was not handed out is left then."""

    def __init__(self, loader: Loader, journal: Journal, say: Callable[[str], None]) -> None:
        self._loader = loader
        self._journal = journal
        self._say = say
        self._lock = threading.Lock()
        self._key: Key | None = None
        self._future: Future[Prepared] | None = None
        self._taken: Key | None = None  # the last that a boundary wanted: too late to begin it
        self._open: set[Future[Any]] = set()
        self._closed = False

    def begin(self, desired: Desired, view: View) -> None:
        """Make this one ready in a thread of its own, and throw away another one. Does nothing if
        it is being made, was made, could not be made, or while too many are on their way."""
        key, prepare = key_of(desired), self._prepare(desired, view)
        with self._lock:
            if self._closed or len(self._open) >= MAX_AT_ONCE:
                return
            if key in {self._key, self._taken}:
                return
            self._drop()
            self._key, self._future = key, self._in_background(prepare)

    def loaded(self, desired: Desired, view: View) -> Running:
        """A mechanism that answers: what was made ready, waited for if it is on its way, else one
        that is loaded now. Raises as `Loader.load` does."""
        state, last = self._journal.state_of(desired.digest), self._last()
        if (prepared := self._take(desired)) is not None:
            try:
                return self._loader.take_up(prepared, state=state, **last)
            except (LoadRefused, InfrastructureError) as problem:
                self._say(f"what was made ready is of no use, so it is loaded again: {problem}")
        return self._loader.take_up(self._prepare(desired, view)(), state=state, **last)

    def _prepare(self, desired: Desired, view: View) -> Callable[[], Prepared]:
        seed = derive(self._journal.seed, len(view.trace), "load")
        return partial(self._loader.prepare, desired, view, seed=seed, **self._last())

    def _last(self) -> dict[str, Any]:
        known = self._journal.desired()
        if known is None:
            return {"last_version": 0, "last_digest": ""}
        return {"last_version": known.version, "last_digest": known.digest}

    def _take(self, desired: Desired) -> Prepared | None:
        """The prepared one, if it is exactly this one. None: there is none, or it failed."""
        with self._lock:
            self._taken = key_of(desired)
            future, wanted = self._future, self._key == self._taken
            if not wanted:
                self._drop()
            self._key = self._future = None
        if future is None or not wanted:
            return None
        try:
            return future.result()
        except (LoadRefused, InfrastructureError):
            return None  # the boundary tries again, and says what is wrong
        except BaseException:  # the runner stops while it waits
            future.add_done_callback(_end)
            raise

    def drop(self) -> None:
        """Throw away what was prepared: it is not wanted any more."""
        with self._lock:
            self._drop()

    def retire(self, host: Host) -> None:
        """End a worker that is not asked any more, while the search goes on."""
        with self._lock:
            self._in_background(host.close).add_done_callback(self._told)

    def close(self) -> None:
        """End what was prepared, and wait a while for what is on its way."""
        with self._lock:
            self._closed = True
            self._drop()
            left = list(self._open)
        wait(left, CLOSE_SECONDS)

    def _drop(self) -> None:
        """Forget what was prepared, and have its worker ended, now or as soon as it is there."""
        if self._future is not None:
            self._in_background(partial(_end_later, self._future)).add_done_callback(self._told)
            self._key = self._future = None

    def _in_background(self, call: Callable[[], T]) -> Future[T]:
        future = in_background(call, name="preload")
        self._open.add(future)
        future.add_done_callback(self._open.discard)
        return future

    def _told(self, ended: Future[None]) -> None:
        """Nobody takes this result: what went wrong is said."""
        if (error := ended.exception()) is not None:
            self._say(f"SANDBOX TROUBLE beside the training: {error!r}")


def _end_later(future: Future[Prepared]) -> None:
    wait([future])
    _end(future)


def _end(future: Future[Prepared]) -> None:
    try:
        prepared = future.result()
    except (LoadRefused, InfrastructureError):
        return  # nothing was made, and it is not wanted any more
    prepared.host.close()
