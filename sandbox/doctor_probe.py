"""A mechanism that tries what is forbidden; `sandbox.doctor` loads it into a real worker.

Its state says of each attempt "refused", "allowed" or what else happened. Never imported by the
platform: it goes into the sandbox as bytes, the way any draft does.
"""

import ctypes
import errno
import os
import platform
import socket
import subprocess
import threading
from collections.abc import Callable
from typing import Any

from sandbox.mechanism import Candidate, Mechanism, View

MIB = 1024 * 1024
REFUSALS = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EROFS}
# A switch, not a list of what is dangerous: each must be stopped before the kernel looks at it.
CALLS = {
    "x86_64": {
        "ptrace": 101,
        "pivot_root": 155,
        "chroot": 161,
        "mount": 165,
        "init_module": 175,
        "kexec_load": 246,
        "keyctl": 250,
        "unshare": 272,
        "perf_event_open": 298,
        "setns": 308,
        "process_vm_readv": 310,
        "memfd_create": 319,
        "bpf": 321,
        "userfaultfd": 323,
        "io_uring_setup": 425,
        "shmget": 29,
        "semget": 64,
        "msgget": 68,
        "linkat": 265,
        "mknodat": 259,
        "syslog": 103,
        "acct": 163,
        "settimeofday": 164,
        "umount2": 166,
        "swapon": 167,
        "reboot": 169,
        "sethostname": 170,
        "delete_module": 176,
        "quotactl": 179,
        "clock_settime": 227,
        "mbind": 237,
        "mq_open": 240,
        "add_key": 248,
        "request_key": 249,
        "splice": 275,
        "vmsplice": 278,
        "inotify_init1": 294,
        "fanotify_init": 300,
        "name_to_handle_at": 303,
        "open_by_handle_at": 304,
        "process_vm_writev": 311,
        "kcmp": 312,
        "finit_module": 313,
        "seccomp": 317,
        "kexec_file_load": 320,
        "execveat": 322,
        "pidfd_send_signal": 424,
        "io_uring_enter": 426,
        "open_tree": 428,
        "move_mount": 429,
        "fsopen": 430,
        "fsmount": 432,
        "pidfd_open": 434,
        "clone3": 435,
        "pidfd_getfd": 438,
        "mount_setattr": 442,
    },
    "aarch64": {
        "mount": 40,
        "pivot_root": 41,
        "chroot": 51,
        "unshare": 97,
        "kexec_load": 104,
        "init_module": 105,
        "ptrace": 117,
        "keyctl": 219,
        "perf_event_open": 241,
        "setns": 268,
        "process_vm_readv": 270,
        "memfd_create": 279,
        "bpf": 280,
        "userfaultfd": 282,
        "io_uring_setup": 425,
        "inotify_init1": 26,
        "mknodat": 33,
        "linkat": 37,
        "umount2": 39,
        "quotactl": 60,
        "vmsplice": 75,
        "splice": 76,
        "acct": 89,
        "clock_settime": 112,
        "syslog": 116,
        "reboot": 142,
        "sethostname": 161,
        "settimeofday": 170,
        "delete_module": 106,
        "mq_open": 180,
        "msgget": 186,
        "semget": 190,
        "shmget": 194,
        "add_key": 217,
        "request_key": 218,
        "swapon": 224,
        "mbind": 235,
        "fanotify_init": 262,
        "name_to_handle_at": 264,
        "open_by_handle_at": 265,
        "process_vm_writev": 271,
        "kcmp": 272,
        "finit_module": 273,
        "seccomp": 277,
        "execveat": 281,
        "kexec_file_load": 294,
        "pidfd_send_signal": 424,
        "io_uring_enter": 426,
        "open_tree": 428,
        "move_mount": 429,
        "fsopen": 430,
        "fsmount": 432,
        "pidfd_open": 434,
        "clone3": 435,
        "pidfd_getfd": 438,
        "mount_setattr": 442,
    },
}
FAMILIES = {"inet": 2, "inet6": 10, "netlink": 16, "packet": 17, "unix": 1, "vsock": 40}
PLACES = (
    "/",
    "/tmp",  # noqa: S108  # nosec B108
    "/dev",
    "/dev/shm",  # noqa: S108  # nosec B108
    "/dev/mqueue",
    "/etc",
    "/home",
    "/opt/sandbox",
    "/proc/sys/kernel",
    "/run",
    "/sys/fs/cgroup",
    "/usr/local/lib",
    "/var/tmp",  # noqa: S108  # nosec B108
)


def _attempt(action: Callable[[], Any]) -> str:
    try:
        action()
    except OSError as error:
        missing = error.errno in (errno.ENOENT, errno.EAFNOSUPPORT)
        refused = error.errno in REFUSALS or missing
        return "refused" if refused else f"reached the kernel: {error}"
    except RuntimeError as error:
        return f"could not try: {error}"
    return "allowed"


def _call(number: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    # Arguments that no call takes: where one gets through, it fails otherwise and does nothing.
    if library.syscall(number, *[ctypes.c_long(-1)] * 6) == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _write(folder: str) -> None:
    with open(os.path.join(folder, "escapement-doctor"), "w", encoding="ascii") as file:
        file.write("x")


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def _threads() -> int:
    wait, count = threading.Event(), 0
    try:
        for count in range(1, 1000):  # noqa: B007
            threading.Thread(target=wait.wait, daemon=True).start()
    except RuntimeError:
        pass
    wait.set()
    return count


class Probe(Mechanism):
    """Tries, or eats what the configuration's TRY says: memory, time or output."""

    def propose(self, view: View, count: int) -> list[Candidate]:
        what = str(view.best.config["TRY"])
        if what == "memory":
            hoard = bytearray(4096 * MIB)
            for start in range(0, len(hoard), 4096):
                hoard[start] = 1
        while what == "time":
            pass
        while what == "output":
            print("x" * 10_000)  # noqa: T201
        return []

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = {"threads": _threads()}
        for name, number in CALLS[platform.machine()].items():
            found[f"system call {name}"] = _attempt(lambda n=number: _call(n))  # type: ignore[misc]
        for name, family in FAMILIES.items():
            found[f"socket {name}"] = _attempt(
                lambda f=family: socket.socket(f, socket.SOCK_STREAM).close()  # type: ignore[misc]
            )
        for place in PLACES:
            found[f"write to {place}"] = _attempt(lambda p=place: _write(p))  # type: ignore[misc]
        found["fork"] = _attempt(_fork)
        found["start a program"] = _attempt(
            lambda: subprocess.run(["/usr/local/bin/python3", "-V"], check=False)
        )
        found["become root"] = _attempt(lambda: os.setuid(0))
        found["read kernel memory"] = _attempt(
            lambda: os.close(os.open("/proc/kcore", os.O_RDONLY))
        )
        found["the engine's socket"] = _attempt(lambda: os.stat("/var/run/docker.sock"))
        return found
