"""Start, watch and end the runner's own subprocesses (trainers), so that none outlives the runner.

Each one is a session of its own (Ctrl-C in a terminal reaches the runner, which then decides), is
killed with everything it started at its deadline, and is killed by the kernel if the runner dies,
however it dies. The latter is asked for by the child itself before it becomes the real program:
this file, run as a script, is that first step (a `preexec_fn` is not safe in a process with
threads). What `run` runs has a supervisor of its own (`runner.processes.supervisor`), which ends
all that it left behind. This is not a sandbox: trainers are our own code.
"""

from __future__ import annotations

import ctypes
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
END_SECONDS = 60.0  # a process of a hundred gigabytes is not gone at once
POLL_SECONDS = 0.2
MAX_LINE_BYTES = 16 * 1024
AFTER_END_BYTES = 2 * 1024 * 1024  # more than a pipe can hold
LINE_END = re.compile(rb"[\r\n]")
NOT_STARTED = 127  # what a shell gives for a program that is not there
FIRST_STEP = Path(__file__)
SUPERVISOR = FIRST_STEP.with_name("supervisor.py")


class StopRequested(BaseException):
    """The runner was asked to stop (SIGINT, SIGTERM). A BaseException, so that nothing which
    handles errors takes it for one."""


STOPPING = threading.Event()
"""Set once the runner was asked to stop: whatever waits, gives up."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """How a subprocess ended. `output` is stdout and stderr together: the first and the last half
    of what fits into `output_bytes`, with a note of how much was cut."""

    returncode: int
    output: str
    timed_out: bool
    seconds: float


class Tail:
    """Keeps the first and the last half of a stream within a limit of bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self.half = max(limit_bytes // 2, 1)
        self.head = b""
        self.tail = b""
        self.seen = 0

    def add(self, data: bytes) -> None:
        """Take up more of the stream."""
        self.seen += len(data)
        room = self.half - len(self.head)
        self.head += data[:room]
        self.tail = (self.tail + data[room:])[-self.half :]

    def text(self) -> str:
        """What was kept, with a note of how much is missing, if anything is."""
        cut = self.seen - len(self.head) - len(self.tail)
        note = f"\n... {cut} bytes cut ...\n".encode() if cut else b""
        return (self.head + note + self.tail).decode(errors="replace")


def run(
    args: Sequence[str | os.PathLike[str]],
    *,
    deadline_seconds: float,
    output_bytes: int = 256 * 1024,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    line: Callable[[str], None] | None = None,
) -> Finished:
    """Run `args` to its end or to its deadline, and give what it printed.

    `line` sees each line as it is printed; a carriage return ends one, too. There is nothing to
    read on its standard input. Whatever happens here, the process and all that it started are
    gone afterwards.
    Raises `StopRequested` if the runner is being stopped, and OSError if it can't be started, or
    is still there END_SECONDS after it was killed.
    """
    started = time.monotonic()
    process = start(args, cwd=cwd, env=env, first_step=SUPERVISOR)
    kept = Tail(output_bytes)
    try:
        assert process.stdin is not None  # noqa: S101 - start() opened it
        process.stdin.close()
        timed_out = not _read(process, kept, started + deadline_seconds, line)
    finally:
        _end_supervised(process)
    return Finished(
        returncode=process.returncode,
        output=kept.text(),
        timed_out=timed_out,
        seconds=time.monotonic() - started,
    )


def start(
    args: Sequence[str | os.PathLike[str]],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    first_step: Path = FIRST_STEP,
) -> subprocess.Popen[bytes]:
    """Start `args` so that it dies with this process. The kernel ties it to the *thread* that
    calls this: call it from one that lives as long as the child should. End it with `end`."""
    return subprocess.Popen(  # noqa: S603 - our own trainers, no shell
        [sys.executable, "-I", "-S", str(first_step), str(os.getpid()), *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        env=None if env is None else dict(env),
        start_new_session=True,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and all of its group, and collect it. Safe to call twice.

    Raises OSError where the kernel does not let go of it (a device or a file system that hangs).
    """
    with suppress(ProcessLookupError, PermissionError):  # the whole group is gone already
        os.killpg(process.pid, signal.SIGKILL)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):  # the other end is gone
                stream.close()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        raise OSError(
            f"process {process.pid} was killed and is still there after {END_SECONDS:g} s"
        ) from None


def _end_supervised(process: subprocess.Popen[bytes]) -> None:
    """Have the supervisor end all that it has, then itself. Raises OSError as `end` does."""
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)  # a program may have stopped it
        process.wait(END_SECONDS)
    end(process)


def _read(
    process: subprocess.Popen[bytes],
    kept: Tail,
    deadline: float,
    line: Callable[[str], None] | None,
) -> bool:
    """Read until the process ended: True, or False at the deadline.

    What it started may hold the pipe longer, and may go on to print: once the process ended, only
    what the pipe can hold is read.
    """
    assert process.stdout is not None  # noqa: S101 - start() opened it
    rest = b""
    left_over = AFTER_END_BYTES
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while left_over > 0:
            if STOPPING.is_set():
                raise StopRequested
            ended = process.poll() is not None  # asked first: what it printed is in the pipe then
            left = deadline - time.monotonic()
            if left <= 0 and not ended:  # what ended while nobody could look counts
                return False
            if not selector.select(0 if ended else min(left, POLL_SECONDS)):
                if ended:
                    break
                continue
            data = os.read(process.stdout.fileno(), 65536)
            if not data:
                break
            left_over -= len(data) if ended else 0
            kept.add(data)
            if line is not None:
                *lines, rest = LINE_END.split(rest + data)
                rest = rest[-MAX_LINE_BYTES:]
                for one in lines:
                    line(one[-MAX_LINE_BYTES:].decode(errors="replace").rstrip())
    if line is not None and rest:
        line(rest.decode(errors="replace").rstrip())
    return _wait(process, deadline)


def _wait(process: subprocess.Popen[bytes], deadline: float) -> bool:
    """Wait for a process that closed its output: True if it ended before the deadline."""
    while process.poll() is None:
        if STOPPING.is_set():
            raise StopRequested
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _become(parent: int, args: list[str]) -> None:
    """In the child: die with the parent from now on, then become the real program."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        os._exit(1)  # the runner died before the line above
    try:
        os.execvp(args[0], args)  # noqa: S606 - no shell is the point
    except OSError as error:
        os.write(2, f"{args[0]} can't be started: {error.strerror}\n".encode())
        os._exit(NOT_STARTED)


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
