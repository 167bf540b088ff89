"""bubblewrap killed from outside as it begins: what it had started ends too, and nobody waits."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from runner.background import in_background
from sandbox.backends.base import Purpose
from sandbox.backends.bubblewrap import BubblewrapBackend
from sandbox.errors import InfrastructureError
from sandbox.limits import Limits

PATIENCE_SECONDS = 120
INSIDE = f"7200.{os.getpid()}"  # seconds that it sleeps: how it is found


@pytest.fixture
def dies_at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[BubblewrapBackend]:
    """A backend whose program ends as if killed, with what it started still there."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # workers are started as another user
        program = Path(folder) / "bwrap"
        program.write_text(f'#!/bin/sh\n[ "$1" = --version ] || sleep {INSIDE} &\nexit 0\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        yield BubblewrapBackend.connect(progress=lambda text: sys.stderr.write(f"{text}\n"))
        for pid in inside():
            os.kill(pid, 9)


def inside() -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().split(b"\0")[:2] == [b"sleep", INSIDE.encode()]:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_it_is_trouble_and_leaves_nothing(dies_at_once: BubblewrapBackend) -> None:
    limits = Limits(start_seconds=0.5)
    start = partial(dies_at_once.start, purpose=Purpose.MECHANISM, limits=limits)
    started = in_background(start, name="start")
    with pytest.raises(InfrastructureError, match="made no sandbox"):
        started.result(PATIENCE_SECONDS)
    assert inside() == []
