"""Readable output of several processes in one terminal: a coloured prefix, one line at a time."""

from __future__ import annotations

import os
import re
import threading
import time
from typing import TextIO

COLOURS = {"demo": 36, "web": 34, "worker": 35, "runner": 32, "error": 31}
MAX_LINE = 2000
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Console:
    """Writes whole lines, from any thread; colours only where a person reads them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._colours = stream.isatty() and "NO_COLOR" not in os.environ
        self._began = time.monotonic()

    def line(self, source: str, text: str) -> None:
        """One line of one process. Control characters of a child never reach the terminal."""
        clean = _ESCAPES.sub("", text)[:MAX_LINE]
        prefix = f"{source:>6} |"
        if self._colours:
            prefix = f"\033[{COLOURS.get(source, 37)}m{prefix}\033[0m"
        with self._lock:
            self._stream.write(f"{prefix} {clean}\n")
            self._stream.flush()

    def say(self, text: str) -> None:
        """What the parent itself does, with the seconds since its start."""
        self.line("demo", f"[{time.monotonic() - self._began:5.1f} s] {text}")

    def error(self, text: str) -> None:
        """Something that a person must read."""
        self.line("error", text)
