"""The channel to a worker that is a process of this machine: pipes, a pidfd, a control group.

It knows how to talk to it, how it ended and how to end it; not what started it.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from sandbox.backends.base import Exit, Sink, Stream, WorkerGone
from sandbox.backends.cgroups import Group
from sandbox.errors import InfrastructureError

EXIT_SECONDS = 10
READ_BYTES = 1 << 16


class ProcessChannel:
    """The pipes of one worker."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        inside: int,
        group: Group,
        posture: dict[str, Any],
    ) -> None:
        self._process = process
        self._inside = inside
        self._group = group
        self._closed = False
        self._ending = threading.Lock()
        self.posture = posture
        self._in, self._out, self._err = _streams(process)
        for stream in (self._in, self._out, self._err):
            os.set_blocking(stream.fileno(), False)
        self._open = {self._out.fileno(): Stream.OUT, self._err.fileno(): Stream.ERR}

    def exchange(
        self, data: bytes, *, sink: Sink, done: Callable[[], bool], deadline: float
    ) -> None:
        """Both directions in one loop: a worker that floods while we write can't block us."""
        if self._closed:
            raise WorkerGone
        rest = memoryview(data)
        if rest:
            rest = rest[self._write(rest, sink) :]  # mostly all of it at once
        poll = select.poll()
        for descriptor in self._open:
            poll.register(descriptor, select.POLLIN)
        if rest:
            poll.register(self._in.fileno(), select.POLLOUT)
        while rest or not done():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            for descriptor, _ in poll.poll(left * 1000):
                if descriptor == self._in.fileno():
                    rest = rest[self._write(rest, sink) :]
                    ended = not rest
                else:
                    ended = not self._read(descriptor, sink)
                if ended:
                    poll.unregister(descriptor)

    def _write(self, rest: memoryview, sink: Sink) -> int:
        try:
            return os.write(self._in.fileno(), rest)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._drain(sink)
            raise WorkerGone from error

    def _read(self, descriptor: int, sink: Sink) -> bool:
        """Hand on what is there; False at the end of standard error, which alone is no end."""
        try:
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return True
        except OSError as error:
            raise WorkerGone from error
        if data:
            sink(self._open[descriptor], data)
            return True
        if self._open.pop(descriptor) is Stream.OUT:
            self._drain(sink)
            raise WorkerGone
        return False

    def _drain(self, sink: Sink) -> None:
        """What a dead worker had still said on standard error."""
        with suppress(OSError):
            while data := os.read(self._err.fileno(), READ_BYTES):
                sink(Stream.ERR, data)

    def require_way(self) -> None:
        """Pipes of this machine: there is nothing between us and the worker."""

    def exit(self) -> Exit:
        """Wait until the process is gone, then ask the kernel whether it was for memory."""
        try:
            code = self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            return Exit(code=0, oom_killed=False, running=True)
        # bubblewrap gives 128 + signal; minus is how it was killed itself.
        return Exit(code=code if code >= 0 else 128 - code, oom_killed=self._group.oom_killed())

    def kill(self) -> None:
        """End the worker, from any thread; its pipes stay open for the one who talks to it."""
        with self._ending:
            if not self._closed:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._inside, signal.SIGKILL)

    def close(self) -> None:
        """Kill the first process inside, and the kernel kills all others with it."""
        if self._closed:
            return
        self.kill()
        with self._ending:
            self._closed = True
            os.close(self._inside)
        try:
            self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        close_pipes(self._process)
        self._group.remove()


def _streams(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise InfrastructureError("A worker was started without pipes.")
    return process.stdin, process.stdout, process.stderr


def close_pipes(process: subprocess.Popen[bytes]) -> None:
    """Close our ends."""
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with suppress(OSError):
                stream.close()
