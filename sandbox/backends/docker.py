"""Sandbox workers as hardened Docker containers. With `engine.py` and
`docker_channel.py`, all that knows Docker.

One container a worker, started from an image id, killed and removed at the end. Its only door is
the attached stream: nothing of the host is mounted, no network, no writable place, no capability,
no new process. The flags are the posture of `docs/threat-model.md`; each is tried for real by
`sandbox.doctor`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import docker
from docker.types import LogConfig, Ulimit

from sandbox import image, reaper
from sandbox.backends import engine, seccomp
from sandbox.backends.base import (
    DRILL_MEMORY_BYTES,
    DRILL_PROCESSES,
    DRILL_USER,
    Purpose,
    Switch,
)
from sandbox.backends.boot import COMMAND, ENVIRONMENT, SECCOMP, UID, refuse_drill
from sandbox.backends.docker_channel import DockerChannel, remove
from sandbox.errors import InfrastructureError
from sandbox.limits import Limits

REAP_SECONDS = 60
UNCONFINED = "unconfined"
# gVisor's own kernel lives in the worker's control group, and its threads count there too.
GVISOR = "runsc"
GVISOR_PROCESSES = 192

_ENGINE_ADDS = ("PATH", "HOSTNAME", "HOME", "TERM")


class DockerBackend:
    """Starts workers on one engine, from one exact image."""

    name = "docker"

    def __init__(
        self,
        client: docker.APIClient,
        image_id: str,
        *,
        runtime: str = "",
        without: Switch | None = None,
    ) -> None:
        self._client = client
        self._image_id = image_id
        self._runtime = runtime
        self._without = without
        self._unset = sorted({*_ENGINE_ADDS, *engine.image_environment(client, image_id)})
        self._reaped_at = 0.0

    @classmethod
    def connect(
        cls,
        *,
        runtime: str = "",
        progress: Callable[[str], None] | None = None,
        without: Switch | None = None,
    ) -> DockerBackend:
        """A backend on the engine that answers; builds the image only if `progress` is given."""
        client = engine.connect(timeout_seconds=engine.WORKER_SECONDS)
        engine.require_runtime(client, runtime)
        image_id = image.ensure_image(progress) if progress else image.current_image(client)
        return cls(client, image_id, runtime=runtime, without=without)

    @property
    def image_id(self) -> str:
        """The exact image that workers run."""
        return self._image_id

    @property
    def fingerprint(self) -> str:
        """Everything that decides whether the posture holds: engine, kernel, image, flags.

        Raises InfrastructureError where the engine does not answer, and for a drill."""
        refuse_drill(self._without)
        flags = [self._flags(p, Limits.screening()) for p in Purpose]
        known = engine.identity(self._client)
        parts = [self.name, self._runtime, self._image_id, known, flags]
        return json.dumps(parts, sort_keys=True)

    def start(self, *, purpose: Purpose, limits: Limits, label: str = "") -> DockerChannel:
        """Create, attach, start: in this order, so that no byte is lost."""
        self._reap_now_and_then()
        flags = self._flags(purpose, limits)
        ticket = reaper.take_ticket()
        try:
            with engine.engine_errors("starting a sandbox worker"):
                container, warnings = self._create(flags, purpose, label, ticket)
                try:
                    _require_limits(warnings)
                    stream = self._client.attach_socket(
                        container, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
                    )
                    posture = {**self._posture(flags), "engine_warnings": warnings}
                    channel = DockerChannel(self._client, container, stream, posture, ticket)
                    self._client.start(container)
                except BaseException:
                    remove(self._client, container)
                    raise
        except BaseException:
            # A slow engine may still make what it was asked for: from now on that is nobody's.
            reaper.drop_ticket(ticket)
            raise
        return channel

    def reap(self) -> list[str]:
        """Remove containers whose owner, a process of this machine, is dead; and those of this
        very process that it gave up (a slow engine made or kept them after all)."""
        with engine.engine_errors("looking for orphaned workers"):
            found = self._client.containers(
                all=True, filters={"label": [reaper.LABEL_SANDBOX + "=1"]}
            )
            orphans = [c["Id"] for c in found if _is_nobodys(c)]
            for container in orphans:
                remove(self._client, container)
        return orphans

    def _flags(self, purpose: Purpose, limits: Limits) -> dict[str, Any]:
        flags = posture_flags(purpose, limits)
        if GVISOR in self._runtime:
            flags["processes"] += GVISOR_PROCESSES
        if self._without is not None:
            loosen(flags, self._without)
        return flags

    def _reap_now_and_then(self) -> None:
        if time.monotonic() - self._reaped_at > REAP_SECONDS or not self._reaped_at:
            self.reap()
            self._reaped_at = time.monotonic()

    def _create(
        self, flags: dict[str, Any], purpose: Purpose, label: str, ticket: str
    ) -> tuple[str, list[str]]:
        host = dict(flags["host_config"])
        host["pids_limit"] = flags["processes"]
        host["log_config"] = LogConfig(type=LogConfig.types.NONE)
        host["ulimits"] = [
            Ulimit(name=name, soft=soft, hard=hard)
            for name, (soft, hard) in host["ulimits"].items()
        ]
        host["security_opt"] = ["no-new-privileges", f"seccomp={_seccomp(flags)}"]
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
                reaper.LABEL_TICKET: ticket,
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


def posture_flags(purpose: Purpose, limits: Limits) -> dict[str, Any]:
    """Every flag of the posture as plain data: what is applied, and what reports record."""
    tests = purpose is Purpose.TESTS
    fsize = limits.tmp_bytes if tests else 0  # a mechanism may not write one byte to any file
    return {
        "user": f"{UID}:{UID}",
        "hostname": "sandbox",
        "command": COMMAND,
        "environment": ENVIRONMENT,
        "seccomp": image.digest(seccomp.read_profile(SECCOMP)),
        "processes": limits.processes,
        "host_config": {
            "network_mode": "none",
            "dns": ["127.0.0.1"],  # else the engine copies the host's own resolv.conf inside
            "dns_search": ["."],
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges", "seccomp"],
            "privileged": False,
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


def loosen(flags: dict[str, Any], switch: Switch) -> None:
    """Take one control out of the flags: for a drill."""
    host = flags["host_config"]
    match switch:
        case Switch.SECCOMP:
            flags["seccomp"] = UNCONFINED
        case Switch.NETWORK:
            host["network_mode"] = "host"
            del host["dns"], host["dns_search"]
        case Switch.MEMORY:
            host["mem_limit"] = host["memswap_limit"] = DRILL_MEMORY_BYTES
        case Switch.USER:
            flags["user"] = f"{DRILL_USER}:{DRILL_USER}"
        case Switch.CAPABILITIES:
            host["cap_drop"] = []
        case Switch.PROCESSES:
            flags["processes"] = DRILL_PROCESSES
        case Switch.FILES:
            host["tmpfs"]["/home"] = "rw,size=1m,mode=1777"


def _seccomp(flags: dict[str, Any]) -> str:
    if flags["seccomp"] == UNCONFINED:
        return UNCONFINED
    data = seccomp.read_profile(SECCOMP)
    if image.digest(data) != flags["seccomp"]:
        raise InfrastructureError(f"{SECCOMP} changed while a worker was started; try again.")
    try:
        return json.dumps(json.loads(data))
    except ValueError as error:
        raise InfrastructureError(f"The seccomp profile {SECCOMP} is no JSON: {error}.") from error


def _require_limits(warnings: list[str]) -> None:
    """An engine that can't apply a limit starts the container without it, and says so."""
    if lost := [w for w in warnings if "discarded" in w.lower()]:
        raise InfrastructureError(
            f"The engine does not apply a limit: {' '.join(lost)[:300]} Mount the control groups "
            "that it needs (memory, pids, cpu; see `docker info`) and restart it."
        )


def _is_nobodys(container: dict[str, Any]) -> bool:
    labels, running = container["Labels"], container["State"] == "running"
    owner = labels.get(reaper.LABEL_OWNER, "")
    if owner == reaper.me():
        return not reaper.is_taken(labels.get(reaper.LABEL_TICKET, ""))
    return reaper.is_orphan(owner, running=running)
