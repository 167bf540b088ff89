"""A sandbox worker whose start does not end in time: trouble that is said and tried again, and no
worker that comes after all is left behind."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from runner.control.hotload import TRY_SECONDS
from sandbox.backends.base import Backend, Channel, Purpose
from sandbox.limits import Limits
from sandbox.report import digest_of
from tests.runner.platformserver import NULL, serve
from tests.runner.stage import LIMITS, Stage, leftovers

PATIENCE_SECONDS = 120.0


class Held:
    """The real engine, but what starts before `free` is set only starts then."""

    name = "held"

    def __init__(self, engine: Backend) -> None:
        self.engine = engine
        self.free = threading.Event()
        self.held = self.ended = 0
        self._lock = threading.Lock()

    @property
    def image_id(self) -> str:
        return self.engine.image_id

    @property
    def fingerprint(self) -> str:
        return self.engine.fingerprint

    def reap(self) -> list[str]:
        return self.engine.reap()

    def start(self, *, purpose: Purpose, limits: Limits, label: str = "") -> Channel:
        if self.free.is_set():
            return self.engine.start(purpose=purpose, limits=limits, label=label)
        with self._lock:
            self.held += 1
        assert self.free.wait(PATIENCE_SECONDS)
        try:
            return self.engine.start(purpose=purpose, limits=limits, label=label)
        finally:
            with self._lock:
                self.ended += 1


@pytest.mark.engine
def test_a_start_that_does_not_end_is_trouble_and_is_tried_again(
    tmp_path: Path, engine: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(engine)
    monkeypatch.setattr("runner.control.platform_link.ENGINE_RETRY_SECONDS", 0.1)
    patient = LIMITS.start_seconds + TRY_SECONDS
    monkeypatch.setattr(
        "runner.control.hotload.MARGIN_SECONDS", 0.3 - patient
    )  # until it is let go

    def let_go(text: str) -> None:
        stage.said.append(text)
        if text.startswith("NO SANDBOX") and not held.free.is_set():
            monkeypatch.setattr("runner.control.hotload.MARGIN_SECONDS", PATIENCE_SECONDS)
            held.free.set()

    with serve() as fake:
        fake.want(NULL)
        stage = Stage(fake, tmp_path / "run", lambda: held)
        stage.told = let_go  # type: ignore[method-assign]
        stage.run(1)
        assert stage.chosen_by() == {1: digest_of(NULL)}
        assert any(o.state == "idle" and "No sandbox worker was ready" in o.reason
                   for o in fake.observed)  # fmt: skip
    assert any("No sandbox worker was ready" in text for text in stage.said)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while held.ended < held.held or leftovers():
        assert time.monotonic() < deadline, (held.held, held.ended, leftovers())
        time.sleep(0.05)
    assert held.held == 2  # the one to try and the one to use
