"""What the platform wants next is made ready while a trial is being trained: with real sandbox
workers and a platform over real HTTP. It shortens a swap, and nothing else follows from it."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.control.desired_state import Pull
from runner.control.hotload import Loader, Prepared
from runner.control.platform_client import PlatformClient, Unreachable
from runner.protocol import Desired
from sandbox.backends.base import Backend
from sandbox.report import digest_of
from tests.runner.platformserver import NULL, FakePlatform, serve
from tests.runner.stage import BAD, HONEST, OTHER, Stage, none_left
from tests.runner.waiting import until


@pytest.fixture
def fake() -> Iterator[FakePlatform]:
    with serve() as platform:
        platform.want(NULL)
        yield platform


class Watched:
    """What was prepared, and whether beside the training."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[tuple[int, bool]] = []  # version, in the background
        self.failed: list[int] = []
        self.hosts: dict[int, Any] = {}
        prepare = Loader.prepare

        def watched(loader: Loader, desired: Desired, *rest: Any, **more: Any) -> Prepared:
            try:
                found = prepare(loader, desired, *rest, **more)
            except BaseException:
                self.failed.append(desired.version)
                raise
            self.hosts[desired.version] = found.host
            self.made.append((desired.version, threading.current_thread().name == "preload"))
            return found

        monkeypatch.setattr(Loader, "prepare", watched)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


@pytest.fixture
def stage(fake: FakePlatform, tmp_path: Path, engine: Backend) -> Stage:
    return Stage(fake, tmp_path / "run", lambda: engine)


@pytest.mark.engine
def test_what_is_made_ready_beside_the_training_is_what_runs(
    stage: Stage, fake: FakePlatform, watched: Watched
) -> None:
    def long_training() -> None:
        fake.want(HONEST, name="made")
        until(lambda: (2, True) in watched.made)

    stage.at = {2: long_training}
    stage.run(4)
    null, honest = digest_of(NULL), digest_of(HONEST)
    assert watched.made == [(1, False), (2, True)]  # and it was not loaded again
    assert fake.attested() == [(1, null), (2, honest)]
    assert stage.chosen_by() == {1: null, 2: null, 3: honest, 4: honest}
    assert fake.trials[3].reason == "call 1"  # the try-out left no trace in its state
    assert none_left()


@pytest.mark.engine
def test_the_boundary_decides_what_runs_whatever_was_made_ready(
    stage: Stage, fake: FakePlatform, watched: Watched
) -> None:
    def changes_its_mind() -> None:
        fake.want(HONEST, name="made")
        until(lambda: (2, True) in watched.made)
        fake.want(OTHER, name="other")

    stage.at = {1: changes_its_mind}
    stage.run(2)
    assert fake.attested() == [(1, digest_of(NULL)), (3, digest_of(OTHER))]
    assert set(stage.chosen_by().values()) == {digest_of(NULL), digest_of(OTHER)}
    assert none_left()


@pytest.mark.engine
def test_one_that_dies_before_its_boundary_is_loaded_again(
    stage: Stage, fake: FakePlatform, watched: Watched
) -> None:
    def dies() -> None:
        fake.want(HONEST, name="made")
        until(lambda: (2, True) in watched.made)
        watched.hosts[2].close()

    stage.at = {1: dies}
    stage.run(3)
    assert fake.attested() == [(1, digest_of(NULL)), (2, digest_of(HONEST))]
    assert fake.attested("refused") == []
    assert {t.status for t in fake.trials.values()} <= {"kept", "discarded"}
    assert fake.trials[2].hooks.raised == 0
    assert any("loaded again" in text for text in stage.said)
    assert none_left()


@pytest.mark.engine
def test_one_that_fails_beside_the_training_is_refused_at_the_boundary_alone(
    stage: Stage, fake: FakePlatform, watched: Watched
) -> None:
    source, why = BAD["import"]

    def bad() -> None:
        fake.want(source, name="made")
        until(lambda: 2 in watched.failed)
        beats = len(fake.observed) + 2
        until(lambda: len(fake.observed) >= beats)
        assert fake.attested("refused") == []

    stage.at = {1: bad}
    stage.run(2)
    assert fake.attested("refused") == [(2, digest_of(NULL))]
    assert why in next(o for o in fake.observed if o.state == "refused").reason
    assert set(stage.chosen_by().values()) == {digest_of(NULL)}
    assert none_left()


# --- asking early ---


@pytest.fixture
def client(fake: FakePlatform) -> Iterator[PlatformClient]:
    client = PlatformClient(fake.credentials(), longest_pause=0.01)
    yield client
    client.close()


@pytest.fixture
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is."""
    monkeypatch.setattr("runner.control.desired_state.FRESH_SECONDS", math.inf)


@pytest.mark.usefixtures("always_fresh")
def test_an_early_answer_is_used_once(fake: FakePlatform, client: PlatformClient) -> None:
    pull, old = Pull(client), fake.desired
    pull.early()
    until(lambda: fake.requests)  # what it asks for now is answered with the old one
    new = fake.want(OTHER, name="other")
    assert pull.now() == old
    assert pull.now() == new


def test_an_old_answer_is_not_used(
    fake: FakePlatform, client: PlatformClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.control.desired_state.FRESH_SECONDS", 0.0)
    pull = Pull(client)
    pull.early()
    new = fake.want(OTHER, name="other")
    assert pull.now() == new


@pytest.mark.usefixtures("always_fresh")
def test_what_failed_early_is_asked_again_with_patience(
    fake: FakePlatform, client: PlatformClient
) -> None:
    pull = Pull(client)
    fake.faults = [(503, {}), (503, {})]
    pull.early()
    assert pull.now() == fake.desired
    fake.faults = [(503, {})] * 4
    pull.early()
    with pytest.raises(Unreachable, match="503"):
        pull.now()
