"""An engine that hangs in each phase, an image that vanished, a runtime that is not there.

The real engine behind a proxy that stops. (Crashes, full disks and an engine that is really
stopped: `scripts/chaos`, on an engine of its own.)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import requests

from sandbox import aside, clearance, reaper
from sandbox.backends import Backend, engine, get_backend
from sandbox.backends.base import Purpose
from sandbox.backends.docker import DockerBackend, _require_limits
from sandbox.draft import lay_out
from sandbox.errors import InfrastructureError
from sandbox.image import ROOT
from sandbox.limits import Limits
from sandbox.report import Draft, Outcome
from sandbox.screen import screen
from tests.sandbox.engine_proxy import PHASES, EngineProxy
from tests.sandbox.leftovers import left_of

pytestmark = pytest.mark.engine
BUSY_SECONDS = 10  # what was asked before the engine hung is waited for as long
GONE_SECONDS = 120


def tabu() -> Draft:
    paths = ("mechanisms/tabu.py", "tests/test_tabu.py")
    files = {p: (ROOT / "mechanisms_repo" / p).read_bytes() for p in paths}
    return lay_out(files, require_test=True)


@pytest.fixture
def proxy(
    request: pytest.FixtureRequest, tmp_path: Path, engine_backend: Backend
) -> Iterator[EngineProxy]:
    made = EngineProxy(tmp_path, request.param)
    yield made
    made.close()


@pytest.fixture
def engine_backend(engine: Backend) -> Backend:
    clearance.require(engine)  # the doctor's look is not what hangs here
    return engine


def short_where_it_hangs(proxy: EngineProxy) -> Callable[..., requests.Response]:
    """The client's requests, with time for a busy machine but where the hanging is waited for."""

    def request(
        client: docker.APIClient, method: str, url: str, **options: Any
    ) -> requests.Response:
        hangs = proxy.hung.is_set() or proxy.hangs(f"{method} {url} ".encode())
        options["timeout"] = 2 if hangs else BUSY_SECONDS
        return docker.APIClient.request(client, method, url, **options)

    return request


@pytest.mark.parametrize("proxy", list(PHASES), indirect=True)
def test_a_hung_engine_is_could_not_look_in_each_phase_and_nothing_stays(
    request: pytest.FixtureRequest,
    proxy: EngineProxy,
    engine_backend: Backend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = set(left_of(engine_backend))
    monkeypatch.setenv("DOCKER_HOST", proxy.address)
    monkeypatch.setattr(engine._Client, "request", short_where_it_hangs(proxy))
    phase = request.node.callspec.params["proxy"]
    limits = Limits(call_seconds=2 if phase == "talk" else 10)
    report = screen(tabu(), backend=get_backend("docker"), limits=limits, static=False)
    assert proxy.hung.is_set(), "the phase was never reached"
    assert report.outcome is Outcome.COULD_NOT_LOOK
    blamed = [f.rule for f in report.findings if f.severity == "error"]
    assert set(blamed) == {"could-not-look"}, "a hung engine is not the draft's fault"
    proxy.go_on()  # what it was asked meanwhile, it now does
    monkeypatch.setenv("DOCKER_HOST", "unix:///var/run/docker.sock")
    again = get_backend("docker")
    deadline = time.monotonic() + GONE_SECONDS
    while (again.reap(), left := set(left_of(again)) - before)[1]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def test_a_container_that_was_given_up_is_reaped_although_its_owner_lives(engine: Backend) -> None:
    channel = engine.start(purpose=Purpose.MECHANISM, limits=Limits.screening(), label="given up")
    container = channel.posture["container"]
    try:
        assert container not in engine.reap(), "it is in use"
        reaper.drop_ticket(channel._ticket)  # type: ignore[attr-defined]
        engine.reap()  # another one may be quicker: gone is what counts
        assert container not in left_of(engine)
    finally:
        channel.close()


def test_a_vanished_image_is_named_with_its_fix(engine: Backend) -> None:
    gone = DockerBackend.__new__(DockerBackend)
    gone.__dict__.update(engine.__dict__, _image_id="sha256:" + "0" * 64)
    with pytest.raises(InfrastructureError, match=r"image vanished.*python -m sandbox image"):
        gone.start(purpose=Purpose.MECHANISM, limits=Limits.screening())


def test_an_unknown_runtime_is_named_with_what_to_do(
    engine: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESCAPEMENT_SANDBOX_RUNTIME", "runsc-that-nobody-registered")
    with pytest.raises(InfrastructureError, match=r"no runtime.*it has .*runc.*RUNTIME"):
        get_backend("docker")


def test_gvisor_gets_room_for_its_own_threads(engine: Backend) -> None:
    other = DockerBackend.__new__(DockerBackend)
    other.__dict__.update(engine.__dict__, _runtime="runsc")
    plain = engine._flags(Purpose.MECHANISM, Limits.screening())  # type: ignore[attr-defined]
    wide = other._flags(Purpose.MECHANISM, Limits.screening())
    assert (plain["processes"], wide["processes"]) == (64, 256)
    assert other.fingerprint != engine.fingerprint


@pytest.mark.parametrize(
    ("warnings", "refused"),
    [
        ([], False),
        (["Memory limited without swap."], False),
        (["Your kernel does not support memory limit capabilities. Limitation discarded."], True),
        (["PIDs limit discarded."], True),
    ],
)
def test_an_engine_that_discards_a_limit_is_refused(warnings: list[str], refused: bool) -> None:
    if not refused:
        _require_limits(warnings)
        return
    with pytest.raises(InfrastructureError, match="does not apply a limit"):
        _require_limits(warnings)


class Stuck:
    """A channel that an engine does not end."""

    def __init__(self, ended: list[str], name: str, fails: bool) -> None:
        self.ended, self.name, self.fails = ended, name, fails

    def kill(self) -> None:
        self.ended.append(self.name)
        if self.fails:
            raise InfrastructureError("it hangs")


def test_each_worker_aside_is_ended_even_if_the_first_can_not_be() -> None:
    ended: list[str] = []
    tracked = aside._Tracked.__new__(aside._Tracked)
    channels: list[Any] = [Stuck(ended, "a", True), Stuck(ended, "b", False)]
    tracked.__dict__.update(_lock=threading.Lock(), _channels=channels, _stopped=False)
    with pytest.raises(InfrastructureError, match="it hangs"):
        tracked.stop()
    assert ended == ["a", "b"]
