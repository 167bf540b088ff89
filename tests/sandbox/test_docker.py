"""The engine's side: what is left behind (nothing), dead clients, dead engines."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import docker
import pytest
import requests
from docker.errors import APIError

from sandbox import doctor
from sandbox.backends import Backend, get_backend
from sandbox.backends import docker as backend_module
from sandbox.backends.base import Purpose
from sandbox.backends.docker_channel import remove
from sandbox.host import InfrastructureError, Limits, MechanismFailure, MechanismHost
from sandbox.image import ROOT
from sandbox.testing import make_view
from tests.sandbox.leftovers import left_of

NULL = b"from sandbox.mechanism import Mechanism\nclass Null(Mechanism): pass\n"


def wait_for(what: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.mark.engine
@pytest.mark.parametrize("source", [NULL, b"1 / 0", b"import os; os._exit(0)"])
def test_nothing_is_left_behind(engine: Backend, source: bytes) -> None:
    try:
        with MechanismHost.start(
            engine, source, name="draft", limits=Limits.screening(), purpose="test"
        ) as host:
            assert len(left_of(engine)) == 1
            host.state()
    except MechanismFailure:
        pass
    assert left_of(engine) == []


@pytest.mark.engine
def test_a_flood_that_nobody_reads_can_be_closed(engine: Backend) -> None:
    source = b"from sandbox.mechanism import Mechanism\nimport threading, os\n"
    source += b"def flood():\n    while True: os.write(2, b'x' * 65536)\n"
    source += b"class M(Mechanism):\n    def propose(self, view, count):\n"
    source += b"        threading.Thread(target=flood, daemon=True).start()\n        return []\n"
    limits = Limits(output_bytes=1 << 30)
    host = MechanismHost.start(engine, source, name="draft", limits=limits, purpose="test")
    host.propose(make_view(), 1, seed=0)
    host.close()
    assert left_of(engine) == []


CLIENT = """
import sys, time
from sandbox import reaper
from sandbox.host import Limits, MechanismHost, get_backend
host = MechanismHost.start(
    get_backend(), sys.stdin.buffer.read(), name="draft", limits=Limits.production(), purpose="test"
)
print(reaper.me(), flush=True)
time.sleep(600)
"""


@pytest.mark.engine
def test_what_a_killed_client_leaves_is_reaped_and_nothing_else(engine: Backend) -> None:
    with MechanismHost.start(
        engine, NULL, name="mine", limits=Limits.screening(), purpose="test"
    ) as mine:
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        assert client.stdin
        assert client.stdout
        client.stdin.write(NULL)
        client.stdin.close()
        owner = client.stdout.readline().decode().strip()
        [orphan] = left_of(engine, owner)
        assert orphan not in engine.reap(), "its owner lives"
        client.send_signal(signal.SIGKILL)
        client.wait()
        client.stdout.close()
        # Another living user of this engine may be quicker to remove it: gone is what counts.
        engine.reap()
        wait_for(lambda: left_of(engine, owner) == [])
        assert mine.state() == {}


@pytest.mark.engine
def test_the_engine_really_got_every_flag(engine: Backend) -> None:
    channel = engine.start(purpose=Purpose.MECHANISM, limits=Limits.screening(), label="flags")
    try:
        client = docker.APIClient()
        seen = client.inspect_container(channel.posture["container"])
    finally:
        channel.close()
    host = seen["HostConfig"]
    assert seen["Image"] == engine.image_id
    assert seen["Config"]["User"] == "64000:64000"
    assert [e for e in seen["Config"]["Env"] if "=" in e] == ["PYTHONHASHSEED=0"]
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["Privileged"] is False
    assert not host["Binds"]
    assert not seen["Mounts"]
    assert host["PidsLimit"] == 64
    assert host["Memory"] == host["MemorySwap"] == 512 << 20
    assert host["NanoCpus"] == 10**9
    assert host["IpcMode"] == "none"
    assert host["CgroupnsMode"] == "private"
    assert host["LogConfig"]["Type"] == "none"
    assert host["Tmpfs"].keys() == {"/dev/mqueue"}
    assert "no-new-privileges" in host["SecurityOpt"]
    assert any(
        o.startswith('seccomp={"defaultAction": "SCMP_ACT_ERRNO"') for o in host["SecurityOpt"]
    )


@pytest.mark.engine
def test_a_container_killed_from_outside_says_nothing_of_the_draft(engine: Backend) -> None:
    with MechanismHost.start(
        engine, NULL, name="draft", limits=Limits.screening(), purpose="test"
    ) as host:
        docker.APIClient().kill(host.posture["container"])
        for says in ("from outside", "was closed"):
            with pytest.raises(InfrastructureError, match=says):
                host.state()


@pytest.mark.engine
def test_a_worker_whose_cage_has_a_hole_gets_no_mechanism(
    engine: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = backend_module.posture_flags

    def loose(purpose: Purpose, limits: Limits) -> dict[str, object]:
        found = flags(purpose, limits)
        found["host_config"]["tmpfs"]["/hole"] = "rw,size=1m,mode=1777"
        return found

    monkeypatch.setattr(backend_module, "posture_flags", loose)
    with pytest.raises(InfrastructureError, match=r"may write to \['/hole'\].*doctor"):
        MechanismHost.start(engine, NULL, name="draft", limits=Limits.screening(), purpose="test")


@pytest.mark.engine
def test_the_doctor_finds_every_control_held(engine: Backend) -> None:
    found = doctor.examine()
    assert [c for c in found if not c.ok] == []
    assert len(found) > 40


@pytest.mark.engine
def test_the_doctor_sees_a_missing_filter(
    engine: Backend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    allow = tmp_path / "seccomp.json"
    allow.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    monkeypatch.setattr(backend_module, "SECCOMP", allow)
    wrong = {c.control: c.what_to_do for c in doctor.examine() if not c.ok}
    assert "fork is refused (seccomp)" in wrong
    assert "socket unix is refused (seccomp)" in wrong
    assert "accept no drafts" in wrong["fork is refused (seccomp)"]


@pytest.fixture
def dead_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))  # bound and never listened to: as after a crash of the engine
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    return path


def test_a_dead_engine_is_named_with_its_fix(dead_socket: Path) -> None:
    with pytest.raises(InfrastructureError, match="does not answer") as caught:
        get_backend()
    assert str(dead_socket) in str(caught.value)
    assert "systemctl start docker" in str(caught.value)


def test_the_doctor_reports_a_dead_engine_and_does_not_raise(dead_socket: Path) -> None:
    [control] = doctor.examine()
    assert not control.ok
    assert "systemctl start docker" in control.what_to_do


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(InfrastructureError, match="no sandbox backend 'podman'"):
        get_backend("podman")


def test_an_engine_behind_tls_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    with pytest.raises(InfrastructureError, match="TLS is not supported"):
        get_backend()
    assert os.environ["DOCKER_TLS_VERIFY"] == "1"


class Racing:
    """An engine whose first removal fails, as when a container ends between its look and its
    kill: nobody can make the real one do that at will."""

    def __init__(self, status: int, text: str) -> None:
        self.asked = 0
        self.status, self.text = status, text

    def remove_container(self, container: str, *, force: bool, v: bool) -> None:
        self.asked += 1
        if self.asked == 1:
            response = requests.Response()
            response.status_code = self.status
            raise APIError("no", response=response, explanation=self.text)


def test_a_container_that_ends_while_it_is_removed_is_removed_all_the_same() -> None:
    text = "Could not kill running container c0, cannot remove - Container c0 is not running"
    for status, said in ((500, text), (409, "removal of container c0 is already in progress")):
        racing = Racing(status, said)
        remove(cast(docker.APIClient, racing), "c0")
        assert racing.asked == 2
    broken = Racing(500, "no space left on device")
    with pytest.raises(APIError):
        remove(cast(docker.APIClient, broken), "c0")
