"""The process between the runner and one trial's program: whatever the program starts ends with it.

Run as a script: `python -I -S supervisor.py RUNNER_PID PROGRAM ARGUMENT ...`. The kernel gives it
every process below it that loses its parent (PR_SET_CHILD_SUBREAPER), so that one which leaves its
session, clears its environment and changes its folder is still found. It ends them all when the
program has ended, when it gets SIGTERM, and when the runner dies, however it dies (the kernel sends
that SIGTERM); then it ends as the program did. The program has a session of its own and dies with
this process. No sandbox: a program that kills this process first is not held by it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
from types import FrameType
from typing import NoReturn

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
END_SECONDS = 50.0  # for what does not go at once; less than what the runner waits
LOOK_SECONDS = 0.005
NOT_STARTED = 127  # what a shell gives for a program that is not there


class _Stopped(BaseException):
    """SIGTERM: from the runner, or from the kernel because the runner is gone."""


def main(runner: int, args: list[str]) -> NoReturn:
    """Run `args` to its end, end what is left of it, and end the same way."""
    status: int | None = None
    try:
        signal.signal(signal.SIGTERM, _stop)
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
        if os.getppid() == runner:  # else it died before the line above
            status = _run(args)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except _Stopped:
        status = None
    _end_all()
    _leave(signal.SIGTERM if status is None else status)


def _stop(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _Stopped


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def _run(args: list[str]) -> int:
    """The program's wait status. Whatever else ends meanwhile is collected."""
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            _become(parent, args)
        finally:
            os._exit(NOT_STARTED)
    os.close(0)  # the program's alone
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == child:
            return status


def _become(parent: int, args: list[str]) -> None:
    """In the child: turn into the program, as a shell would have started it."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    try:
        os.execvp(args[0], args)  # noqa: S606 - no shell is the point
    except OSError as error:
        os.write(2, f"{args[0]} can't be started: {error.strerror}\n".encode())


def _end_all() -> None:
    """Kill every child until there is none: those of a killed one become ours."""
    end = time.monotonic() + END_SECONDS
    while time.monotonic() < end:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        for pid in _children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)  # else it ended, or runs as somebody else
        time.sleep(LOOK_SECONDS)


def _children() -> list[int]:
    own, found = str(os.getpid()).encode(), []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = file.read().rpartition(b")")[2].split()[1]
            except OSError:  # it ended
                continue
            if parent == own:
                found.append(int(name))
    return found


def _leave(status: int) -> NoReturn:
    """End as `status` says: with the same code, or by the same signal."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
