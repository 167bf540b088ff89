"""Sandbox workers as hardened Docker containers. With `engine.py`, all that knows Docker.

One container a worker, started from an image id, killed and removed at the end. Its only door is
the attached stream: nothing of the host is mounted, no network, no writable place, no capability,
no new process. The flags are the posture of `docs/threat-model.md`; each is tried for real by
`sandbox.doctor`.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import docker
from docker.errors import APIError, NotFound
from docker.types import LogConfig, Ulimit

from sandbox import image, reaper
from sandbox.backends import engine
from sandbox.backends.base import Exit, Purpose, Sink, Stream, WorkerGone
from sandbox.backends.boot import COMMAND, ENVIRONMENT, SECCOMP, UID
from sandbox.errors import InfrastructureError
from sandbox.limits import Limits

EXIT_SECONDS = 10
OOM_NOTICE_SECONDS = 0.5
REMOVE_SECONDS = 30
REAP_SECONDS = 60
READ_BYTES = 1 << 16

_ENGINE_ADDS = ("PATH", "HOSTNAME", "HOME", "TERM")

_HEADER = struct.Struct(">BxxxL")  # of the engine's multiplexed stream: which one, how long
_STREAMS = {1: Stream.OUT, 2: Stream.ERR}


class DockerBackend:
    """Starts workers on one engine, from one exact image."""

    name = "docker"

    def __init__(self, client: docker.APIClient, image_id: str, *, runtime: str = "") -> None:
        self._client = client
        self._image_id = image_id
        self._runtime = runtime
        self._unset = sorted({*_ENGINE_ADDS, *engine.image_environment(client, image_id)})
        self._reaped_at = 0.0

    @classmethod
    def connect(
        cls, *, runtime: str = "", progress: Callable[[str], None] | None = None
    ) -> DockerBackend:
        """A backend on the engine that answers; builds the image only if `progress` is given."""
        client = engine.connect()
        image_id = image.ensure_image(progress) if progress else image.current_image(client)
        return cls(client, image_id, runtime=runtime)

    @property
    def image_id(self) -> str:
        """The exact image that workers run."""
        return self._image_id

    @property
    def fingerprint(self) -> str:
        """Everything that decides whether the posture holds: engine, kernel, image, flags."""
        flags = [posture_flags(p, Limits.screening()) for p in Purpose]
        known = engine.identity(self._client)
        parts = [self.name, self._runtime, self._image_id, known, flags]
        return json.dumps(parts, sort_keys=True)

    def start(self, *, purpose: Purpose, limits: Limits, label: str = "") -> DockerChannel:
        """Create, attach, start: in this order, so that no byte is lost."""
        self._reap_now_and_then()
        flags = posture_flags(purpose, limits)
        with engine.engine_errors("starting a sandbox worker"):
            container, warnings = self._create(flags, purpose, label)
            try:
                stream = self._client.attach_socket(
                    container, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
                )
                posture = {**self._posture(flags), "engine_warnings": warnings}
                channel = DockerChannel(self._client, container, stream, posture)
                self._client.start(container)
            except BaseException:
                _remove(self._client, container)
                raise
        return channel

    def reap(self) -> list[str]:
        """Remove containers whose owner, a process of this machine, is dead."""
        with engine.engine_errors("looking for orphaned workers"):
            found = self._client.containers(
                all=True, filters={"label": [reaper.LABEL_SANDBOX + "=1"]}
            )
            orphans = [
                c["Id"]
                for c in found
                if reaper.is_orphan(
                    c["Labels"].get(reaper.LABEL_OWNER, ""), running=c["State"] == "running"
                )
            ]
            for container in orphans:
                _remove(self._client, container)
        return orphans

    def _reap_now_and_then(self) -> None:
        if time.monotonic() - self._reaped_at > REAP_SECONDS or not self._reaped_at:
            self.reap()
            self._reaped_at = time.monotonic()

    def _create(self, flags: dict[str, Any], purpose: Purpose, label: str) -> tuple[str, list[str]]:
        host = dict(flags["host_config"])
        host["log_config"] = LogConfig(type=LogConfig.types.NONE)
        host["ulimits"] = [
            Ulimit(name=name, soft=soft, hard=hard)
            for name, (soft, hard) in host["ulimits"].items()
        ]
        host["security_opt"] = ["no-new-privileges", f"seccomp={_seccomp()}"]
        if self._runtime:
            host["runtime"] = self._runtime
        created = self._client.create_container(
            self._image_id,
            entrypoint=COMMAND,
            command=[],
            user=flags["user"],
            hostname=flags["hostname"],
            stdin_open=True,
            tty=False,
            # A name without "=" removes what the image or the engine would set.
            environment=[*self._unset, *(f"{k}={v}" for k, v in ENVIRONMENT.items())],
            labels={
                reaper.LABEL_SANDBOX: "1",
                reaper.LABEL_OWNER: reaper.me(),
                reaper.LABEL_PURPOSE: f"{purpose} {label}".strip()[:100],
            },
            host_config=self._client.create_host_config(**host),
            use_config_proxy=False,
        )
        return str(created["Id"]), [str(w) for w in created.get("Warnings") or []]

    def _posture(self, flags: dict[str, Any]) -> dict[str, Any]:
        return {
            "backend": self.name,
            "runtime": self._runtime or "default",
            "image_id": self._image_id,
            "flags": flags,
        }


class DockerChannel:
    """The attached stream of one container."""

    def __init__(
        self, client: docker.APIClient, container: str, stream: Any, posture: dict[str, Any]
    ) -> None:
        self._client = client
        self._container = container
        self._stream = stream  # kept: closing it is what hangs up
        self._socket = socket.socket(fileno=_duplicate(stream))
        self._socket.setblocking(False)
        self._buffer = bytearray()
        self._closed = False
        self.posture = {**posture, "container": container}

    def exchange(
        self, data: bytes, *, sink: Sink, done: Callable[[], bool], deadline: float
    ) -> None:
        """Both directions in one loop: a worker that floods while we write can't block us."""
        if self._closed:
            raise WorkerGone
        rest = memoryview(data)
        poll = select.poll()
        while rest or not done():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            poll.register(self._socket, select.POLLIN | (select.POLLOUT if rest else 0))
            for _, event in poll.poll(left * 1000):
                if event & ~select.POLLOUT:
                    self._read(sink)
                elif rest:
                    rest = rest[self._write(rest) :]

    def _write(self, rest: memoryview) -> int:
        try:
            return self._socket.send(rest)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise WorkerGone from error

    def _read(self, sink: Sink) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            raise WorkerGone from error
        if not data:
            raise WorkerGone
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            which, length = _HEADER.unpack_from(self._buffer)
            if which not in _STREAMS:
                raise InfrastructureError(f"The engine's stream is broken: stream {which}.")
            # A piece is what the engine read at once, some 32 KiB: the sink's limits see all.
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            sink(_STREAMS[which], bytes(self._buffer[_HEADER.size : end]))
            del self._buffer[:end]

    def exit(self) -> Exit:
        """Wait until the engine knows the end; it may learn of an OOM kill a moment later."""
        deadline = time.monotonic() + EXIT_SECONDS
        state = self._state()
        while state["Running"] and time.monotonic() < deadline:
            time.sleep(0.02)
            state = self._state()
        notice = time.monotonic() + OOM_NOTICE_SECONDS
        while state["ExitCode"] == 137 and not state["OOMKilled"] and time.monotonic() < notice:
            time.sleep(0.05)
            state = self._state()
        return Exit(code=state["ExitCode"], oom_killed=state["OOMKilled"], running=state["Running"])

    def _state(self) -> dict[str, Any]:
        with engine.engine_errors("inspecting a sandbox worker"):
            state: dict[str, Any] = self._client.inspect_container(self._container)["State"]
            return state

    def kill(self) -> None:
        """End the worker, from any thread; the one who talks to it reads the stream's end."""
        with engine.engine_errors("ending a sandbox worker"):
            try:
                self._client.kill(self._container)
            except APIError as error:
                if error.status_code not in (404, 409):  # it is gone, or has ended
                    raise

    def close(self) -> None:
        """Hang up first: the engine's kill waits for an attached stream that nobody reads."""
        if self._closed:
            return
        with suppress(OSError):
            # The client library holds the connection too: closing our end of it is not enough.
            self._socket.shutdown(socket.SHUT_RDWR)
        for stream in (self._socket, self._stream):
            with suppress(OSError):
                stream.close()
        with engine.engine_errors("removing a sandbox worker"):
            _remove(self._client, self._container)
        self._closed = True


def posture_flags(purpose: Purpose, limits: Limits) -> dict[str, Any]:
    """Every flag of the posture as plain data: what is applied, and what reports record."""
    tests = purpose is Purpose.TESTS
    fsize = limits.tmp_bytes if tests else 0  # a mechanism may not write one byte to any file
    return {
        "user": f"{UID}:{UID}",
        "hostname": "sandbox",
        "command": COMMAND,
        "environment": ENVIRONMENT,
        "seccomp": image.digest(SECCOMP.read_bytes()),
        "host_config": {
            "network_mode": "none",
            "dns": ["127.0.0.1"],  # else the engine copies the host's own resolv.conf inside
            "dns_search": ["."],
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges", "seccomp"],
            "privileged": False,
            "pids_limit": limits.processes,
            "mem_limit": limits.memory_bytes,
            "memswap_limit": limits.memory_bytes,
            "nano_cpus": 10**9,
            "ipc_mode": "none",
            "cgroupns": "private",
            "log_config": "none",
            "tmpfs": _tmpfs(limits, writable=tests),
            "ulimits": {
                "nofile": [256, 256],
                "core": [0, 0],
                "fsize": [fsize, fsize],
                "cpu": [limits.cpu_seconds, limits.cpu_seconds + 1],
            },
        },
    }


def _tmpfs(limits: Limits, *, writable: bool) -> dict[str, str]:
    # The engine mounts a writable message queue folder even without IPC: cover it.
    places = {"/dev/mqueue": "ro,noexec,nosuid,nodev,size=4k,nr_inodes=1,mode=0555"}
    if writable:
        size = f"size={limits.tmp_bytes},nr_inodes=4k,mode=1777"
        places["/tmp"] = f"rw,noexec,nosuid,nodev,{size}"  # noqa: S108  # nosec B108
    return places


def _seccomp() -> str:
    return json.dumps(json.loads(SECCOMP.read_bytes()))


def _duplicate(stream: Any) -> int:
    try:
        return socket.dup(stream.fileno())
    except (AttributeError, OSError) as error:
        raise InfrastructureError(
            f"The engine at {engine.address()} gives no plain stream; use a unix socket."
        ) from error


def _remove(client: docker.APIClient, container: str) -> None:
    """Kill and remove; waits while another one is already removing it."""
    deadline = time.monotonic() + REMOVE_SECONDS
    while True:
        try:
            client.remove_container(container, force=True, v=True)
            return
        except NotFound:
            return
        except APIError as error:
            if error.status_code != 409 or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
