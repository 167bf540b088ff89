"""Asks the running mechanism, and does what must be done when it fails (raises, hangs, dies,
answers nonsense).

- A failed call is asked once more, in a new worker of the same bytes with the last stored state.
- A second failure before a whole trial went well means that the mechanism is given up:
  `Control.give_up` reports it, and nothing runs until `Control` has another mechanism.
- The sandbox's own trouble is nobody's failure; a worker is started again a few times, then the
  run pauses with InfrastructureError.

There is no default that quietly takes over. What is asked is not decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from runner.loop.decisions import Running
from runner.storage.journal import Journal
from sandbox.errors import InfrastructureError, MechanismFailure

MAX_FAILURES = 2
MAX_ENGINE_TROUBLES = 3

T = TypeVar("T")


class Workers(Protocol):
    """What supervision needs of `search.Control`."""

    def restart(self, running: Running, state: Mapping[str, Any] | None) -> Running: ...

    def give_up(self, running: Running, reason: str) -> None: ...


class Asking(NamedTuple, Generic[T]):
    """A hook's answer (None: the mechanism was given up), calls made, and how many failed."""

    answer: T | None
    calls: int
    failed: int


class SupervisedMechanism:
    """Holds the mechanism that answers now, if one does."""

    def __init__(self, *, journal: Journal, control: Workers, say: Callable[[str], None]) -> None:
        self.journal = journal
        self.control = control
        self.say = say
        self.running: Running | None = None
        self._engine_troubles = 0

    def ask(self, call: Callable[[Running], T], failures: int) -> Asking[T]:
        """Call a hook, and once more in a new worker if it failed. `failures` before this one."""
        failed = calls = 0
        while self.running is not None:
            calls += 1
            try:
                return Asking(call(self.running), calls, failed)
            except MechanismFailure as error:
                failed += 1
                self.failed(str(error), failures + failed)
            except InfrastructureError as error:
                self.engine_trouble(error)
        return Asking(None, calls, failed)

    def failed(self, reason: str, failures: int) -> None:
        """Restart the worker after the first failure, give the mechanism up after the second."""
        assert self.running is not None  # noqa: S101 - it has just failed
        self.say(f"MECHANISM FAILED: {self.running.name}: {reason}")
        if failures >= MAX_FAILURES:
            self.give_up(f"failed {failures} times in a row in production, last: {reason}")
        else:
            self.restart()

    def restart(self) -> None:
        """A new worker from the same bytes and the last stored state; else it is given up."""
        running = self.running
        if running is None:
            return
        try:
            self.running = self.control.restart(running, self.journal.state_of(running.digest))
        except MechanismFailure as error:
            self.give_up(f"could not be started again: {error}")

    def give_up(self, reason: str) -> None:
        """Nothing runs any more; said and reported."""
        if self.running is not None:
            self.say(f"MECHANISM GIVEN UP: {self.running.name}: {reason}")
            running, self.running = self.running, None
            self.control.give_up(running, reason)

    def engine_trouble(self, error: InfrastructureError) -> None:
        """Start the same mechanism once more. Raises `error` after a few times in a row."""
        self._engine_troubles += 1
        if self._engine_troubles >= MAX_ENGINE_TROUBLES:
            raise error
        self.say(f"SANDBOX TROUBLE: {error}")
        self.restart()

    def went_well(self) -> None:
        """A whole trial was decided."""
        self._engine_troubles = 0
