"""Waiting for what happens in other processes, with a patience that a slow, busy machine keeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

PATIENCE_SECONDS = 120.0


def until(condition: Callable[[], object]) -> None:
    """Return once it holds. Raises AssertionError where it does not in time."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"it did not happen within {PATIENCE_SECONDS:g} s")
        time.sleep(0.02)


def wait_for_end(pid: int) -> None:
    """Return once the process is gone, or a zombie. Raises AssertionError."""
    until(lambda: not _alive(pid))


def _alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
