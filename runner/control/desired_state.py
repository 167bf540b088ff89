"""Asks the platform what should run, where that can be done a moment before the answer is needed:
while the last trial of a round is decided.

The answer at a boundary was always asked for after the last training had ended, and at most
FRESH_SECONDS ago: an order that was given while something was trained is in it.
"""

from __future__ import annotations

import time
from concurrent.futures import Future
from functools import partial

from runner.background import in_background
from runner.control.platform_client import PlatformClient, Refused, Unreachable
from runner.protocol import Desired

FRESH_SECONDS = 0.5


class Pull:
    """The desired state for one thread, the search's own."""

    def __init__(self, client: PlatformClient) -> None:
        self._client = client
        self._early: tuple[float, Future[Desired]] | None = None

    def early(self) -> None:
        """Ask in a thread of its own, unless that is being done."""
        if self._early is None or self._early[1].done():
            asked = in_background(partial(self._client.desired, once=True), name="pull")
            self._early = (time.monotonic(), asked)

    def now(self) -> Desired:
        """What should run: the early answer if it is fresh, else one that is asked for now. Raises
        as `PlatformClient.desired` does."""
        early, self._early = self._early, None
        if early is not None and time.monotonic() - early[0] < FRESH_SECONDS:
            try:
                return early[1].result()
            except (Unreachable, Refused):
                pass  # asked again, more patiently, by who can say what is wrong
        return self._client.desired()
