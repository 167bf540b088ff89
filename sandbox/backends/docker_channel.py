"""The channel to a worker that is a Docker container: the attached stream, its end, its removal.

With `docker.py` and `engine.py`, all that knows Docker. It knows nothing of flags or images.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import docker
from docker.errors import APIError, NotFound

from sandbox import reaper
from sandbox.backends import engine
from sandbox.backends.base import Exit, Sink, Stream, WorkerGone
from sandbox.errors import InfrastructureError

EXIT_SECONDS = 10
OOM_NOTICE_SECONDS = 0.5
REMOVE_SECONDS = 30
READ_BYTES = 1 << 16

_HEADER = struct.Struct(">BxxxL")  # of the engine's multiplexed stream: which one, how long
_STREAMS = {1: Stream.OUT, 2: Stream.ERR}


class DockerChannel:
    """The attached stream of one container."""

    def __init__(
        self,
        client: docker.APIClient,
        container: str,
        stream: Any,
        posture: dict[str, Any],
        ticket: str,
    ) -> None:
        self._client = client
        self._ticket = ticket
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
        if rest:
            rest = rest[self._write(rest) :]  # mostly all of it at once
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

    def require_way(self) -> None:
        """The engine copies each byte: while it does not answer, nobody knows of the worker."""
        if self._state()["Paused"]:
            raise InfrastructureError("Somebody paused a sandbox worker: `docker ps`.")

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
        """End the worker, from any thread; the one who talks to it reads the stream's end. Where
        the engine does not do it, at least nobody waits for its answers any longer."""
        try:
            with engine.engine_errors("ending a sandbox worker"):
                self._kill()
        except InfrastructureError:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            raise

    def _kill(self) -> None:
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
        try:
            with engine.engine_errors("removing a sandbox worker"):
                remove(self._client, self._container)
        finally:
            reaper.drop_ticket(self._ticket)  # what could not be removed is reaped later
        self._closed = True


def _duplicate(stream: Any) -> int:
    try:
        return socket.dup(stream.fileno())
    except (AttributeError, OSError) as error:
        raise InfrastructureError(
            f"The engine at {engine.address()} gives no plain stream; use a unix socket."
        ) from error


def remove(client: docker.APIClient, container: str) -> None:
    """Kill and remove; once more while another one is already removing it, and where it ended by
    itself between the engine's look and its kill (which is no 409, but a 500)."""
    deadline = time.monotonic() + REMOVE_SECONDS
    while True:
        try:
            client.remove_container(container, force=True, v=True)
            return
        except NotFound:
            return
        except APIError as error:
            ended = "is not running" in str(error.explanation)
            if not (error.status_code == 409 or ended) or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
