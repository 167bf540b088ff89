"""What a worker sees of its own cage, as plain data. Inside half, standard library only.

Taken before foreign code is loaded, so that it is a measurement and not testimony. What it should
be is decided on the host side (`sandbox.host`), not here.
"""

from __future__ import annotations

import os
import resource
import socket
import stat
import sys
from typing import Any

# Kernel file systems whose "writable" entries are switches of this very process, not storage.
_NOT_STORAGE = ("/proc", "/sys")
_MAX_FOLDERS = 20_000


def collect() -> dict[str, Any]:
    """uid, capabilities, seccomp, devices, writable paths, environment names and limits."""
    status = _status()
    return {
        "uid": os.getuid(),
        "gid": os.getgid(),
        "groups": sorted(os.getgroups()),
        "pid": os.getpid(),
        "python": sys.version.split()[0],
        "hostname": socket.gethostname(),
        "capabilities": {k: status.get(k, "") for k in ("CapInh", "CapPrm", "CapEff", "CapBnd")},
        "no_new_privileges": status.get("NoNewPrivs", ""),
        "seccomp": status.get("Seccomp", ""),
        "network_devices": _devices(),
        "writable": _writable(),
        "environment": sorted(_environment()),
        "limits": {
            "nofile": list(resource.getrlimit(resource.RLIMIT_NOFILE)),
            "core": list(resource.getrlimit(resource.RLIMIT_CORE)),
            "fsize": list(resource.getrlimit(resource.RLIMIT_FSIZE)),
            "cpu": list(resource.getrlimit(resource.RLIMIT_CPU)),
        },
        "mounts": _mounts(),
    }


def _status() -> dict[str, str]:
    with open("/proc/self/status", encoding="utf-8") as file:
        pairs = (line.split(":", 1) for line in file if ":" in line)
        return {key: value.strip() for key, value in pairs}


def _devices() -> list[str]:
    # Two header lines, then "  name: counters". Asking by a socket is not allowed here.
    with open("/proc/self/net/dev", encoding="utf-8") as file:
        return sorted(line.split(":", 1)[0].strip() for line in file.readlines()[2:])


def _environment() -> list[str]:
    """Names as the kernel started this process, whatever was changed since."""
    with open("/proc/self/environ", "rb") as file:
        return [part.split(b"=", 1)[0].decode() for part in file.read().split(b"\0") if part]


def _mounts() -> list[str]:
    """`place type options` of every mount that is not a kernel file system."""
    with open("/proc/self/mounts", encoding="utf-8") as file:
        rows = [line.split() for line in file]
    return sorted(
        f"{place} {kind} {options.split(',')[0]}"
        for _, place, kind, options, *_ in rows
        if not place.startswith(_NOT_STORAGE)
    )


def _writable() -> list[str]:
    """Every folder and file that this user may write to; devices have no storage behind them.

    Whatever is mounted read-only is that for everybody, and is not walked through.
    """
    mounts = _places()
    open_to_writes = [p for p in mounts if not os.statvfs(p).f_flag & os.ST_RDONLY]
    return sorted(path for place in open_to_writes for path in _writable_in(place, mounts))


def _places() -> set[str]:
    """Where something is mounted that is not a kernel file system, and can be reached."""
    with open("/proc/self/mounts", encoding="utf-8") as file:
        # Octal escapes stand for space, tab, newline and backslash.
        found = {line.split()[1].encode().decode("unicode_escape") for line in file}
    return {p for p in found if not _is_kernels(p) and os.path.exists(p)}


def _is_kernels(place: str) -> bool:
    return any(place == k or place.startswith(f"{k}/") for k in _NOT_STORAGE)


def _writable_in(place: str, mounts: set[str]) -> list[str]:
    """Below one mount, and not into the next one."""
    if not os.path.isdir(place):
        return [place] if _may_write(place) else []
    found = []
    for seen, (folder, folders, files) in enumerate(os.walk(place)):
        below = {f: os.path.join(folder, f) for f in folders}
        folders[:] = [f for f, p in below.items() if p not in mounts and not _is_kernels(p)]
        if seen > _MAX_FOLDERS:
            raise RuntimeError(f"more than {_MAX_FOLDERS} folders in the image")
        if os.access(folder, os.W_OK):
            found.append(folder)
        found += [p for p in (os.path.join(folder, f) for f in files) if _may_write(p)]
    return found


def _may_write(path: str) -> bool:
    device = stat.S_ISCHR(os.lstat(path).st_mode)
    return not device and not os.path.islink(path) and os.access(path, os.W_OK)
