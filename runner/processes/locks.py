"""Lock files that the kernel lets go when their holder dies, however it dies. Knows nobody."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from runner.processes import subprocesses

POLL_SECONDS = 0.2


class LockError(RuntimeError):
    """No lock can be had; the message says why."""


@contextmanager
def one_of(
    paths: Sequence[Path], *, wait_seconds: float, waiting: Callable[[], object] = lambda: None
) -> Iterator[int]:
    """The number of a lock file that nobody else holds, for as long as the block lasts; waits for
    one to be free, and calls `waiting` once if it has to.

    Raises LockError after `wait_seconds`, StopRequested if the runner is being stopped."""
    deadline, told = time.monotonic() + wait_seconds, False
    while True:
        for number, path in enumerate(paths):
            descriptor = _locked(path)
            if descriptor is not None:
                try:
                    yield number
                finally:
                    os.close(descriptor)
                return
        if subprocesses.STOPPING.is_set():
            raise subprocesses.StopRequested
        if time.monotonic() > deadline:
            names = ", ".join(str(path) for path in paths)
            raise LockError(f"{names}: held by another process for {wait_seconds:.0f} s")
        if not told:
            waiting()
            told = True
        time.sleep(POLL_SECONDS)


def _locked(path: Path) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LockError(f"{path} can't be opened: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
