"""A run without a platform: the null mechanism in this process, and news that go nowhere.

Plain Level 1 and 1.5. No other mechanism can be loaded this way: there is nobody who approved it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.loop.decisions import InProcess, Running
from runner.storage.journal import Journal
from sandbox.mechanism import Mechanism, View

NULL_NAME = "null"
NO_DIGEST = ""  # nothing was loaded from bytes: nothing to attest


class Local:
    """`search.Control` without a platform."""

    def __init__(self, journal: Journal, mechanism: type[Mechanism] = Mechanism) -> None:
        self._journal = journal
        self._mechanism = mechanism
        self._running: Running | None = None

    def approaching(self) -> None:
        """There is nobody to ask."""

    def boundary(self, view: View, *, pending: bool) -> Running:
        """The null mechanism; never stopped, never swapped."""
        if self._running is None:
            self._running = self._start(self._journal.state_of(NO_DIGEST))
        return self._running

    def restart(self, running: Running, state: Mapping[str, Any] | None) -> Running:
        """A new instance with the last state."""
        self._running = self._start(state)
        return self._running

    def give_up(self, running: Running, reason: str) -> None:
        """There is no other mechanism to wait for: the run ends."""
        raise RuntimeError(f"the null mechanism failed: {reason}")

    def activity(self, text: str) -> None:
        """Nobody is told."""

    def news(self) -> None:
        """Nobody is told."""

    def _start(self, state: Mapping[str, Any] | None) -> Running:
        host = InProcess(self._mechanism())
        if state is not None:
            host.restore(dict(state))
        return Running(host=host, name=NULL_NAME, digest=NO_DIGEST, version=0)
