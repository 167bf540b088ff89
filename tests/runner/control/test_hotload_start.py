"""A sandbox worker, or one of the doctor's, whose start does not end in time: trouble that is said
and tried again, and no worker that comes after all is left behind."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from runner.control.hotload import TRY_SECONDS
from sandbox import cache
from sandbox.backends.base import Backend, Channel, Purpose
from sandbox.limits import Limits
from sandbox.report import digest_of
from tests.runner.platformserver import NULL, serve
from tests.runner.stage import LIMITS, Stage, none_left
from tests.runner.waiting import PATIENCE_SECONDS, until


class Held:
    """The real engine, but what starts before `free` is set only starts then: the doctor's workers,
    or the others."""

    name = "held"

    def __init__(self, engine: Backend, *, doctor: bool) -> None:
        self.engine = engine
        self.doctor = doctor
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
        if self.free.is_set() or (label == "doctor") is not self.doctor:
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
@pytest.mark.parametrize("doctor", [False, True], ids=["worker", "doctor"])
def test_a_start_that_does_not_end_is_trouble_and_is_tried_again(
    doctor: bool, tmp_path: Path, engine: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(engine, doctor=doctor)
    starts = 1 if doctor else 2  # the one to try and the one to use
    said = "The sandbox's doctor did not end" if doctor else "No sandbox worker was ready"
    monkeypatch.setattr("runner.control.platform_link.ENGINE_RETRY_SECONDS", 0.1)
    if doctor:  # nobody has a verdict yet
        monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))

    def patience(seconds: float) -> None:
        own = LIMITS.start_seconds + TRY_SECONDS
        bound, most = ("DOCTOR", seconds) if doctor else ("MARGIN", seconds - own)
        monkeypatch.setattr(f"runner.control.hotload.{bound}_SECONDS", most)

    def let_go(text: str) -> None:
        stage.said.append(text)
        if text.startswith("waiting:") and said in text and not held.free.is_set():
            # Both are begun by then, and the heartbeat told, each in a thread of its own.
            until(lambda: held.held == starts and fake.idle_because(said))
            patience(PATIENCE_SECONDS)
            held.free.set()

    patience(0.3)  # until it is let go
    with serve() as fake:
        fake.want(NULL)
        stage = Stage(fake, tmp_path / "run", lambda: held)
        stage.told = let_go  # type: ignore[method-assign]
        stage.run(1)
        assert stage.chosen_by() == {1: digest_of(NULL)}
    assert any(text.startswith("NO SANDBOX") and said in text for text in stage.said)
    assert held.held == starts
    until(lambda: held.ended == starts)
    assert none_left()
