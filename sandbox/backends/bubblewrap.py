"""Sandbox workers in bubblewrap's namespaces: the posture without an engine or a daemon.

All that knows `bwrap`. One process tree a worker, on the content of the sandbox image as a
read-only folder, with our seccomp profile, limits by control groups, and pipes as the only door.
It is killed with the process that started it.
"""

from __future__ import annotations

import json
import os
import platform
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from sandbox import folder, image
from sandbox.backends import seccomp
from sandbox.backends.base import (
    DRILL_MEMORY_BYTES,
    DRILL_PROCESSES,
    DRILL_USER,
    Purpose,
    Switch,
)
from sandbox.backends.boot import BOOT, ENVIRONMENT, PYTHON, SECCOMP, UID, refuse_drill
from sandbox.backends.cgroups import Group, Hierarchy
from sandbox.backends.process import ProcessChannel, close_pipes
from sandbox.errors import InfrastructureError
from sandbox.limits import Limits

PROGRAM = "bwrap"
REAP_SECONDS = 60
INFO_BYTES = 4096
NOFILE = 256
HELPERS = 1  # bubblewrap's own first process inside counts as one
_NAMESPACES = ("user", "ipc", "pid", "uts", "cgroup")
_FIX = (
    "Install it (`apt-get install bubblewrap`), let this user make namespaces "
    "(`sysctl kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0`),"
    " or use ESCAPEMENT_SANDBOX=docker."
)
# What bubblewrap can't do is done by the worker itself, before foreign code is there, and can't be
# undone by it: limits of the process, and a second filter. The first one must let Python start;
# this one ends that, since bubblewrap has no noexec for /tmp.
_LOCK = (
    "import resource as r\n"
    "for k, v in {rlimits}.items(): r.setrlimit(getattr(r, 'RLIMIT_' + k.upper()), v)\n"
    "import ctypes as c; f = bytes.fromhex('{program}'); b = c.create_string_buffer(f, len(f))\n"
    "class P(c.Structure): _fields_ = [('n', c.c_ushort), ('p', c.c_void_p)]\n"
    "p = P(len(f) // 8, c.addressof(b))\n"
    "if c.CDLL(None).prctl(22, 2, c.byref(p), 0, 0): raise SystemExit('no second filter')\n"
    "del r, k, v, c, f, b, P, p\n"
)


class _Parent:
    """The one thread that starts workers: the kernel kills a worker when the *thread* that started
    it ends, and threads of a pool or of a web server come and go."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bubblewrap")
        self._pid = os.getpid()

    def start(self, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        """`subprocess.Popen` in that thread."""
        if self._pid != os.getpid():  # after a fork the thread stayed with the parent
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="bubblewrap")
            self._pid = os.getpid()

        def popen() -> subprocess.Popen[bytes]:
            return subprocess.Popen(command, **options)  # noqa: S603 - our own command

        return self._thread.submit(popen).result()


_parent = _Parent()


class BubblewrapBackend:
    """Starts workers on one root folder."""

    name = "bubblewrap"

    def __init__(
        self,
        program: str,
        root: Path,
        image_id: str,
        groups: Hierarchy,
        *,
        without: Switch | None = None,
    ) -> None:
        self._without = without
        self._program = program
        self._root = root
        self._image_id = image_id
        self._groups = groups
        self._reaped_at = 0.0
        self._version = _version(program)

    @classmethod
    def connect(
        cls,
        *,
        progress: Callable[[str], None] | None = None,
        without: Switch | None = None,
    ) -> BubblewrapBackend:
        """A backend on this machine; builds the root folder only if `progress` is given."""
        program = shutil.which(PROGRAM)
        if program is None:
            raise InfrastructureError(f"There is no {PROGRAM} on this machine. {_FIX}")
        groups = Hierarchy.find()
        seccomp.compile_profile(seccomp.read_profile(SECCOMP))
        root, image_id = folder.ensure(progress)
        return cls(program, root, image_id, groups, without=without)

    @property
    def image_id(self) -> str:
        """The exact content that workers run."""
        return self._image_id

    @property
    def fingerprint(self) -> str:
        """Everything that decides whether the posture holds here. None for a drill."""
        refuse_drill(self._without)
        flags = [posture_flags(p, Limits.screening()) for p in Purpose]
        parts = [self.name, self._version, platform.release(), self._groups.version]
        return json.dumps([*parts, os.geteuid(), self._image_id, flags], sort_keys=True)

    def start(self, *, purpose: Purpose, limits: Limits, label: str = "") -> ProcessChannel:
        """Start, hold back until every limit is on, let go."""
        if time.monotonic() - self._reaped_at > REAP_SECONDS or not self._reaped_at:
            self.reap()
            self._reaped_at = time.monotonic()
        flags = posture_flags(purpose, limits)
        if self._without is not None:
            loosen(flags, self._without)
        group = self._groups.create(
            memory_bytes=flags["memory_bytes"], processes=flags["processes"]
        )
        try:
            process, inside = self._spawn(flags, group, limits)
        except BaseException:
            group.remove()
            raise
        posture = {
            "backend": self.name,
            "runtime": self._version,
            "image_id": self._image_id,
            "flags": flags,
            "cgroup": {"version": self._groups.version, "name": group.name},
            "label": label[:100],
        }
        return ProcessChannel(process, inside, group, posture)

    def reap(self) -> list[str]:
        """Remove what owners left that are dead."""
        return self._groups.reap()

    def _spawn(
        self, flags: dict[str, Any], group: Group, limits: Limits
    ) -> tuple[subprocess.Popen[bytes], int]:
        """The process, and a pidfd of the first process inside; blocked until limits are set."""
        with _pipe() as (info_out, info_in), _pipe() as (block_out, block_in):
            process = self._popen(flags, info_in.fileno(), block_out.fileno())
            info_in.close()
            try:
                pid = _child(info_out.fileno(), process, time.monotonic() + limits.start_seconds)
                inside = os.pidfd_open(pid)
                try:
                    group.add(pid)
                    block_in.write(b"x")
                except BaseException:
                    os.close(inside)
                    raise
            except BaseException as error:
                _end(process)
                process.wait()
                close_pipes(process)
                if isinstance(error, OSError):
                    raise InfrastructureError(f"A worker can't be limited: {error}.") from error
                raise
            return process, inside

    def _popen(self, flags: dict[str, Any], info: int, block: int) -> subprocess.Popen[bytes]:
        program = seccomp.allow_everything() if flags["seccomp"] == "off" else _profile(flags)
        with _memory_file(program) as profile:
            descriptors = {"seccomp": profile, "info-fd": info, "block-fd": block}
            options: dict[str, Any] = {}
            if os.geteuid() == 0:
                options = {"user": flags["uid"], "group": flags["uid"], "extra_groups": []}
            try:
                return _parent.start(
                    _command(self._program, self._root, flags, descriptors=descriptors),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=tuple(descriptors.values()),
                    env={},
                    cwd="/",
                    bufsize=0,
                    process_group=0,  # what it started is found, even if it was killed meanwhile
                    **options,
                )
            except OSError as error:
                raise InfrastructureError(f"{PROGRAM} does not start: {error}. {_FIX}") from error


def posture_flags(purpose: Purpose, limits: Limits) -> dict[str, Any]:
    """Every flag of the posture as plain data: what is applied, and what reports record."""
    tests = purpose is Purpose.TESTS
    fsize = limits.tmp_bytes if tests else 0  # a mechanism may not write one byte to any file
    return {
        "uid": UID,
        "hostname": "sandbox",
        "environment": ENVIRONMENT,
        "seccomp": image.digest(seccomp.read_profile(SECCOMP)),
        "network": "none",
        "capabilities": "none",
        "root": "read-only",
        "tmpfs": {"/tmp": limits.tmp_bytes} if tests else {},  # noqa: S108  # nosec B108
        "memory_bytes": limits.memory_bytes,
        "processes": limits.processes + HELPERS,
        "cpus": 1,
        "rlimits": {
            "nofile": (NOFILE, NOFILE),
            "core": (0, 0),
            "fsize": (fsize, fsize),
            "cpu": (limits.cpu_seconds, limits.cpu_seconds + 1),
        },
    }


def loosen(flags: dict[str, Any], switch: Switch) -> None:
    """Take one control out of the flags: for a drill."""
    match switch:
        case Switch.SECCOMP:
            flags["seccomp"] = "off"
        case Switch.NETWORK:
            flags["network"] = "host"
        case Switch.MEMORY:
            flags["memory_bytes"] = DRILL_MEMORY_BYTES
        case Switch.USER:
            flags["uid"] = DRILL_USER
        case Switch.CAPABILITIES:
            flags["capabilities"] = "all"
        case Switch.PROCESSES:
            flags["processes"] = DRILL_PROCESSES
        case Switch.FILES:
            flags["tmpfs"] |= {"/etc": 1 << 20}


def _command(
    program: str, root: Path, flags: dict[str, Any], *, descriptors: dict[str, int]
) -> list[str]:
    words = [program, "--die-with-parent", "--new-session", "--clearenv"]
    words += ["--cap-drop" if flags["capabilities"] == "none" else "--cap-add", "ALL"]
    words += [f"--unshare-{name}" for name in _NAMESPACES]
    if flags["network"] == "none":
        words.append("--unshare-net")
    words += ["--uid", str(flags["uid"]), "--gid", str(flags["uid"])]
    words += ["--hostname", flags["hostname"], "--ro-bind", str(root), "/", "--proc", "/proc"]
    for name in folder.DEVICES:
        words += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    for place, size_bytes in flags["tmpfs"].items():
        words += ["--perms", "1777", "--size", str(size_bytes), "--tmpfs", place]
    for name, value in flags["environment"].items():
        words += ["--setenv", name, value]
    for name, descriptor in descriptors.items():
        words += [f"--{name}", str(descriptor)]
    programs = seccomp.allow_everything() if flags["seccomp"] == "off" else None
    second = (programs or seccomp.forbid_programs()).hex()
    lock = _LOCK.format(program=second, rlimits=flags["rlimits"])
    return [*words, "--chdir", "/", "--", *PYTHON, lock + BOOT]


def _profile(flags: dict[str, Any]) -> bytes:
    data = seccomp.read_profile(SECCOMP)
    if image.digest(data) != flags["seccomp"]:
        raise InfrastructureError(f"{SECCOMP} changed while a worker was started; try again.")
    return seccomp.compile_profile(data)


def _child(info: int, process: subprocess.Popen[bytes], deadline: float) -> int:
    """The process id of the first process inside, as bubblewrap tells it."""
    told = b""
    while not told.rstrip().endswith(b"}"):
        left = deadline - time.monotonic()
        ready, _, _ = select.select([info], [], [], max(left, 0))
        part = os.read(info, INFO_BYTES) if ready else b""
        told += part
        if not part or len(told) > INFO_BYTES:
            _end(process)
            _, said = process.communicate()
            text = said.decode("utf-8", "replace").strip()[-300:]
            raise InfrastructureError(f"{PROGRAM} made no sandbox ({text or 'no word'}). {_FIX}")
    return int(json.loads(told)["child-pid"])


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill it with the first process inside, which waits for it, is not yet tied to its life, and
    holds our pipes. It was not waited for: its group is still its own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Both ends of a pipe, as objects: closing one twice must not close another's descriptor."""
    read, write = os.pipe()
    with open(read, "rb", buffering=0) as out, open(write, "wb", buffering=0) as into:
        yield out, into


@contextmanager
def _memory_file(data: bytes) -> Iterator[int]:
    descriptor = os.memfd_create("seccomp")
    try:
        os.write(descriptor, data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _version(program: str) -> str:
    try:
        answer = subprocess.run(  # noqa: S603 - the program that was found on the path
            [program, "--version"], capture_output=True, text=True, check=False, timeout=10, env={}
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InfrastructureError(f"{program} does not run: {error}. {_FIX}") from error
    if answer.returncode:
        raise InfrastructureError(f"{program} does not run: {answer.stderr.strip()[-300:]}. {_FIX}")
    return answer.stdout.strip()
