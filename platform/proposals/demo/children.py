"""The demo's child processes: started together, restarted a few times, always stopped together.

A child dies with its parent, however the parent dies (`runner.processes.subprocesses`); normally it
is asked to stop first and has some seconds for it.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from proposals.demo.console import Console
from runner.processes import subprocesses

MAX_RESTARTS = 3
FORGET_SECONDS = 600  # a crash that long ago no longer counts
LAST_LINES = 40


class ChildFailed(RuntimeError):
    """A child ended that must not, more often than is bearable."""


@dataclass
class Child:
    """One process and how to start it. `may_finish`: exit code 0 is an end, not a crash."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    console: Console
    grace_seconds: float = 15.0
    may_finish: bool = False
    process: subprocess.Popen[bytes] | None = None
    finished: bool = False
    crashes: list[float] = field(default_factory=list)
    restart_at: float = 0.0
    lines: list[str] = field(default_factory=list)
    _reader: threading.Thread | None = None

    def start(self) -> None:
        """Start it. Must be called from the parent's main thread: the child's life hangs on it."""
        self.restart_at = 0.0
        self.process = subprocesses.start(self.command, cwd=self.cwd, env=self.env)
        assert self.process.stdin is not None  # noqa: S101 - start() opened it
        self.process.stdin.close()
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None  # noqa: S101 - start() opened it
        try:
            for raw in process.stdout:
                text = raw.decode(errors="replace").rstrip()
                if text:
                    self.lines = [*self.lines[1 - LAST_LINES :], text]
                    self.console.line(self.name, text)
        except ValueError:  # stop() closed the pipe while this thread waited in it
            return

    @property
    def running(self) -> bool:
        """Is the process there?"""
        return self.process is not None and self.process.poll() is None

    def look(self) -> None:
        """Notice an end: take note of a finish, restart after a crash. Raises ChildFailed."""
        if self.finished or self.running:
            return
        now = time.monotonic()
        if self.restart_at:
            if now >= self.restart_at:
                self.console.error(f"starting {self.name} again")
                self.start()
            return
        code = None if self.process is None else self.process.returncode
        if code == 0 and self.may_finish:
            self.finished = True
            self.console.say(f"{self.name} has finished")
            return
        self.crashes = [t for t in self.crashes if now - t < FORGET_SECONDS] + [now]
        if len(self.crashes) > MAX_RESTARTS:
            raise ChildFailed(
                f"{self.name} crashed {len(self.crashes)} times (exit code {code}); its last lines "
                "are above. `make doctor` looks at every part."
            )
        delay = 2.0 ** (len(self.crashes) - 1)
        self.console.error(f"{self.name} ended (exit code {code}); again in {delay:.0f} s")
        self.restart_at = now + delay

    def ask_to_stop(self) -> None:
        """Send SIGTERM to the process alone: it stops what it started in its own order."""
        if self.process is not None and self.running:
            self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Wait for its end within its grace, then kill it and its whole group."""
        if self.process is None:
            return
        try:
            self.process.wait(self.grace_seconds)
        except subprocess.TimeoutExpired:
            self.console.error(f"{self.name} did not stop in {self.grace_seconds:.0f} s: killed")
        if self._reader is not None and self.process.poll() is not None:
            self._reader.join(2)  # its last words
        subprocesses.end(self.process)
        self.process = None


class Family:
    """All children, stopped in the order in which they are given."""

    def __init__(self, children: Sequence[Child], console: Console) -> None:
        self.children = children
        self._console = console

    def look(self) -> None:
        """Look after each child once. Raises ChildFailed."""
        for child in self.children:
            child.look()

    def stop(self) -> None:
        """Ask all to stop, and see to it."""
        for child in self.children:
            if child.running:
                self._console.say(f"stopping {child.name}")
            child.ask_to_stop()
            child.stop()
