"""A way to the real Docker engine that stops carrying bytes at a chosen moment, as a hung engine.

From then on nothing passes in either direction, on any connection; new ones are taken and not
answered. `go_on` delivers what was held back.
"""

from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress
from pathlib import Path

ENGINE = "/var/run/docker.sock"
# What the client sends when it comes to each phase.
PHASES = {
    "create": rb"^POST \S*/containers/create",
    "attach": rb"^POST \S*/attach",
    "start": rb"^POST \S*/start ",
    "talk": rb'"propose"',
    "remove": rb"^DELETE ",
}


class EngineProxy:
    """A unix socket in front of the engine."""

    def __init__(self, folder: Path, phase: str) -> None:
        self.address = f"unix://{folder}/engine.sock"
        self._trigger = re.compile(PHASES[phase])
        self._flows = threading.Event()
        self._flows.set()
        self.hung = threading.Event()
        self._sockets: list[socket.socket] = []
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(f"{folder}/engine.sock")
        self._server.listen(64)
        self._thread(self._accept)

    def hangs(self, data: bytes) -> bool:
        """Whether nothing is carried from these bytes of a client on."""
        return self._trigger.search(data) is not None

    def go_on(self) -> None:
        """Carry again, and hang no more."""
        self._trigger = re.compile(rb"(?!)")
        self._flows.set()

    def close(self) -> None:
        self.go_on()
        for end in (self._server, *self._sockets):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                engine = socket.socket(socket.AF_UNIX)
                engine.connect(ENGINE)
                self._sockets += [client, engine]
                self._thread(self._carry, client, engine, True)
                self._thread(self._carry, engine, client, False)

    def _carry(self, source: socket.socket, target: socket.socket, asking: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if asking and self.hangs(data):
                    self._flows.clear()
                    self.hung.set()
                self._flows.wait()
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _thread(self, function: object, *arguments: object) -> None:
        threading.Thread(target=function, args=arguments, daemon=True).start()  # type: ignore[arg-type]
