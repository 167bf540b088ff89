"""How a trial's metric is found in what it prints: exactly one honest number, or a reason why not.

Reads line by line while the trial runs, so that a flood can't hide a second number between the
lines that are kept. A format that is nearly right is told as such: it is never read kindly.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

import re2

MAX_LINE = 2000
MAX_SEEN = 3
NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,4})?", re.ASCII)
NOT_FINITE = re.compile(r"[-+]?(?:nan|inf|infinity)", re.IGNORECASE | re.ASCII)
SUMMARY_LINE = re.compile(r"^([a-z][A-Za-z0-9_]{0,39}):\s+(\S.{0,199})$", re.ASCII)
MAX_SUMMARY = 40


@dataclass(kw_only=True)
class MetricReader:
    """Sees every line that a trial prints, then tells its metric.

    `pattern` (RE2, one group: linear time) takes the place of a line `NAME: NUMBER`. `take_last`
    lets the last of several numbers count; otherwise a second one means that there is none.
    """

    name: str
    pattern: str | None = None
    take_last: bool = False
    summary: dict[str, str] = field(default_factory=dict)
    _texts: list[str] = field(default_factory=list)
    _count: int = 0
    _near: str = ""

    def __post_init__(self) -> None:
        self._plain = re.compile(rf"^{re.escape(self.name)}:[ \t]*(\S*)[ \t]*$")
        self._matches = re2.compile(self.pattern) if self.pattern else None

    def feed(self, text: str) -> None:
        """One line of output; a carriage return within it begins a new one."""
        for line in text.split("\r"):
            self._line(line[:MAX_LINE])

    def _line(self, line: str) -> None:
        if line == "---":
            self.summary.clear()
        if self._matches is not None:
            found = [match.group(1) or "" for match in self._matches.finditer(line)]
        else:
            found = self._plain.findall(line)
            if not found and line.lstrip().startswith(self.name):
                self._near = line.strip()
        for one in found:
            self._count += 1
            self._texts = [*self._texts, one][-MAX_SEEN:]
        if not found and (match := SUMMARY_LINE.match(line)) and len(self.summary) < MAX_SUMMARY:
            self.summary[match[1]] = match[2].strip()

    def result(self) -> tuple[float | None, str, str]:
        """The metric, or None with the class of failure (`no_metric`, `nan`) and why."""
        what = f"a match of {self.pattern!r}" if self.pattern else f"a line `{self.name}: NUMBER`"
        if not self._count:
            near = f"; a line comes near: {self._near[:200]!r}" if self._near else ""
            return None, "no_metric", f"the trial printed no line or match: it needs {what}{near}"
        if self._count > 1 and not self.take_last:
            seen = ", ".join(text[:30] for text in self._texts)
            which = "which one? `take: last` in a space.yaml lets the last one count"
            why = f"the trial printed {self.name} {self._count} times ({seen}): {which}"
            return None, "no_metric", why
        text = self._texts[-1]
        if NOT_FINITE.fullmatch(text):
            return None, "nan", f"{self.name} is {text}"
        if not NUMBER.fullmatch(text):
            return None, "no_metric", f"{self.name} is {text[:60]!r}, not a number"
        value = float(text)
        if not math.isfinite(value):
            return None, "nan", f"{self.name} is {value}"
        if self.name.endswith("bpb") and value < 0:
            return None, "no_metric", f"{self.name} is {value}: bits per byte can't be below 0"
        return value, "", ""
