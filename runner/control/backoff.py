"""Whether the platform answers: how long it is left alone, and how often that is said.

Sends nothing and stores nothing; `runner.control.platform_link` asks before each request and tells
how it went.
"""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST_BACKOFF_SECONDS = 15.0
REMIND_SECONDS = 15.0


class Backoff:
    """When the platform may be asked again. Safe to use from several threads: at worst, something
    is said twice."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._backoff, self._silent_until = 0.0, 0.0
        self._reminded: dict[str, float] = {}

    @property
    def silent(self) -> bool:
        """Whether it was just found not to answer: don't ask now."""
        return time.monotonic() < self._silent_until

    @property
    def down(self) -> bool:
        """Whether it did not answer when it was last asked."""
        return self._backoff > 0

    def unreachable(self, told: str) -> None:
        """It did not answer: leave it alone, longer each time."""
        self._backoff = min(max(self._backoff * 2, 1.0), LONGEST_BACKOFF_SECONDS)
        self._silent_until = time.monotonic() + self._backoff
        self.remind(f"PLATFORM UNREACHABLE: {told}")

    def reached(self) -> None:
        """It answered."""
        if self._backoff:
            self._say("the platform answers again")
        self._backoff, self._silent_until = 0.0, 0.0

    def remind(self, text: str) -> None:
        """Say it, but not the same kind more often than every REMIND_SECONDS."""
        kind, now = text[:20], time.monotonic()
        if now - self._reminded.get(kind, -REMIND_SECONDS) >= REMIND_SECONDS:
            self._reminded[kind] = now
            self._say(text)
