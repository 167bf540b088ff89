"""Limits of memory, processes and CPU by the kernel's control groups, version 1 or 2.

One group for each worker, named after the process that owns it, so that what a killed owner left
can be told apart and removed. A limit that this machine does not give is an error, never skipped.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sandbox import reaper
from sandbox.errors import InfrastructureError

VARIABLE = "ESCAPEMENT_CGROUP"
MOUNT = Path("/sys/fs/cgroup")
CONTROLLERS = ("memory", "pids", "cpu")
PERIOD_MICROSECONDS = 100_000
EMPTY_SECONDS = 10
_NAME = re.compile(r"worker\.(\d+)\.(\d+)\.(\d+)\.[0-9a-f]{16}")
_FIX = (
    "Run as root; or give this user a group of its own (`systemd-run --user --scope -p Delegate=yes"
    f" ...`) and name it in {VARIABLE}; or use ESCAPEMENT_SANDBOX=docker."
)


@dataclass(frozen=True, kw_only=True)
class Hierarchy:
    """Where the groups of workers are made: one folder for each controller, or one for all."""

    version: int
    parents: Mapping[str, Path]

    @classmethod
    def find(cls, mount: Path = MOUNT) -> Hierarchy:
        """The hierarchy of this machine. Raises InfrastructureError where a limit is missing."""
        name = os.environ.get(VARIABLE, "escapement").strip("/")
        if ".." in Path(name).parts:
            raise InfrastructureError(f"{VARIABLE} names a group below {mount}, without `..`.")
        if (mount / "cgroup.controllers").exists():
            return cls._second(mount, mount / name)
        parents = {c: mount / c / name for c in CONTROLLERS}
        missing = [c for c in CONTROLLERS if not (mount / c / "cgroup.procs").exists()]
        if missing:
            raise _no_limit(f"there is no control group for {', '.join(missing)} in {mount}")
        for parent in parents.values():
            _make(parent)
        found = cls(version=1, parents=parents)
        found._check_swap(parents["memory"] / "memory.memsw.limit_in_bytes")
        return found

    @classmethod
    def _second(cls, mount: Path, parent: Path) -> Hierarchy:
        _make(parent)
        for folder in (mount, parent) if parent.parent == mount else (parent,):
            with suppress(OSError):  # what counts is what is there afterwards
                (folder / "cgroup.subtree_control").write_text("+memory +pids +cpu")
        given = (parent / "cgroup.subtree_control").read_text(encoding="ascii").split()
        if missing := [c for c in CONTROLLERS if c not in given]:
            raise _no_limit(f"{parent} may not hand on {', '.join(missing)}")
        return cls(version=2, parents=dict.fromkeys(CONTROLLERS, parent))

    def _check_swap(self, switch: Path) -> None:
        """Swap has to be limited with the memory, or be absent."""
        if switch.exists():
            return
        if len(Path("/proc/swaps").read_text(encoding="ascii").splitlines()) > 1:
            raise _no_limit("swap is on and can't be limited (boot with swapaccount=1, or swapoff)")

    def create(self, *, memory_bytes: int, processes: int) -> Group:
        """A new, empty group with these limits and one CPU."""
        _, _, pid, started = reaper.me().split("|")
        name = f"worker.{_namespace()}.{pid}.{started}.{secrets.token_hex(8)}"
        group = Group(hierarchy=self, name=name)
        try:
            for folder in group.folders:
                folder.mkdir()
            self._limit(group, memory_bytes, processes)
        except OSError as error:
            group.remove()
            raise _no_limit(f"{error.filename or name}: {error.strerror}") from error
        except BaseException:
            group.remove()
            raise
        return group

    def _limit(self, group: Group, memory_bytes: int, processes: int) -> None:
        place = {c: parent / group.name for c, parent in self.parents.items()}
        memory, pids, cpu = place["memory"], place["pids"], place["cpu"]
        if self.version == 1:
            rows = [(memory / "memory.limit_in_bytes", str(memory_bytes))]
            if (memory / "memory.memsw.limit_in_bytes").exists():
                rows.append((memory / "memory.memsw.limit_in_bytes", str(memory_bytes)))
            rows.append((cpu / "cpu.cfs_period_us", str(PERIOD_MICROSECONDS)))
            rows.append((cpu / "cpu.cfs_quota_us", str(PERIOD_MICROSECONDS)))
        else:
            rows = [(memory / "memory.max", str(memory_bytes))]
            if (memory / "memory.swap.max").exists():
                rows.append((memory / "memory.swap.max", "0"))
            else:
                self._check_swap(memory / "memory.swap.max")
            rows.append((cpu / "cpu.max", f"{PERIOD_MICROSECONDS} {PERIOD_MICROSECONDS}"))
        rows.append((pids / "pids.max", str(processes)))
        for path, value in rows:
            path.write_text(value, encoding="ascii")

    def reap(self) -> list[str]:
        """Kill and remove the groups of owners that are dead; their names."""
        removed = []
        for name in sorted({path.name for p in self.parents.values() for path in p.iterdir()}):
            if (found := _NAME.fullmatch(name)) and found[1] == _namespace():
                host, boot, *_ = reaper.me().split("|")
                if reaper.is_orphan(f"{host}|{boot}|{found[2]}|{found[3]}", running=True):
                    Group(hierarchy=self, name=name).remove()
                    removed.append(name)
        return removed


@dataclass(frozen=True, kw_only=True)
class Group:
    """The control group of one worker."""

    hierarchy: Hierarchy
    name: str

    @property
    def folders(self) -> list[Path]:
        """Its folder in each hierarchy, without repetition."""
        return sorted({parent / self.name for parent in self.hierarchy.parents.values()})

    def add(self, pid: int) -> None:
        """Move a process in; whatever it starts later is born inside."""
        try:
            for folder in self.folders:
                (folder / "cgroup.procs").write_text(str(pid), encoding="ascii")
        except OSError as error:
            raise _no_limit(f"a worker can't be moved into {self.name}: {error}") from error

    def oom_killed(self) -> bool:
        """Whether the kernel killed something in here for want of memory."""
        file = "memory.oom_control" if self.hierarchy.version == 1 else "memory.events"
        path = self.hierarchy.parents["memory"] / self.name / file
        try:
            rows = path.read_text(encoding="ascii").splitlines()
        except OSError as error:
            raise InfrastructureError(f"The memory events of {self.name} are gone.") from error
        counts = dict(row.split(maxsplit=1) for row in rows)
        return int(counts.get("oom_kill", 0)) > 0

    def remove(self) -> None:
        """Kill whatever is inside and remove the group; waits until the kernel lets go of it."""
        deadline = time.monotonic() + EMPTY_SECONDS
        left = [f for f in self.folders if f.exists()]
        while left:
            for folder in left:
                self._kill(folder)
                with suppress(OSError):  # busy until the last process is really gone
                    folder.rmdir()
            left = [f for f in left if f.exists()]
            if left and time.monotonic() > deadline:
                raise InfrastructureError(f"{left[0]} does not become empty, so it stays.")
            if left:
                time.sleep(0.002)

    def _kill(self, folder: Path) -> None:
        try:
            pids = (folder / "cgroup.procs").read_text(encoding="ascii").split()
        except OSError:
            return
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def _make(parent: Path) -> None:
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _no_limit(f"{parent} can't be made: {error.strerror}") from error
    if not os.access(parent, os.W_OK):
        raise _no_limit(f"{parent} can't be written to")


def _namespace() -> str:
    """The inode of our view of process ids: another view's ids mean nothing here."""
    return str(os.stat("/proc/self/ns/pid").st_ino)


def _no_limit(why: str) -> InfrastructureError:
    return InfrastructureError(f"Memory and processes of a worker can't be limited: {why}. {_FIX}")
