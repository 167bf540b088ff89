"""How a trial's metric is found in what it prints: exactly one honest number, or a reason why not.

Reads line by line while the trial runs, so that a flood can't hide a second number between the
lines that are kept. A format that is nearly right is told as such: it is never read kindly. Colours
and the like are no part of a line: terminals don't show them either.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import re2

MAX_LINE = 2000
MAX_SEEN = 3
MAX_NAME = 60
MAX_LAST = 100
NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,4})?", re.ASCII)
WHOLE = re.compile(rf"(?<![\w./+-]){NUMBER.pattern}(?!\.?[\w/])", re.ASCII)  # not 1 of 1/2, 0x1f
NOT_FINITE = re.compile(r"[-+]?(?:nan|inf|infinity)", re.IGNORECASE | re.ASCII)
SUMMARY_LINE = re.compile(r"^([a-z][A-Za-z0-9_]{0,39}):\s+(\S.{0,199})$", re.ASCII)
ANY_NUMBER = "([-+]?(?:nan|NaN|inf|[.0-9][-+.0-9eE]*))"
IN_FILE = "in a space.yaml beside the script, or in the file of --config"
UNKNOWN_FORM = f"WHAT STANDS BEFORE IT {ANY_NUMBER}"  # pasted as it is, it finds nothing
SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$]")
HIGHER = frozenset(
    {"acc", "accuracy", "f1", "auc", "auroc", "map", "iou", "dice", "bleu", "rouge", "score"}
    | {"reward", "return", "r2", "precision", "recall"}
)
LOWER = frozenset(
    {"loss", "bpb", "bpc", "ppl", "perplexity", "nll", "error", "err", "rmse", "mse", "mae"}
    | {"mape", "wer", "cer"}
)
HELD_OUT = frozenset({"val", "valid", "validation", "test", "eval", "final", "best"})
THOUSANDS = re.compile(r"[-+]?[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])", re.ASCII)
MAX_SUMMARY = 40
MAX_NAMED = 6
ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def shown(text: str) -> str:
    """Output as a terminal shows it: without escape sequences, of each line what its last carriage
    return left; other control characters become `?`."""
    lines = (ESCAPE.sub("", line.rstrip("\r")) for line in text.split("\n"))
    return "\n".join(UNSEEN.sub("?", line.rpartition("\r")[2]) for line in lines)


def compiled(pattern: str) -> Any:
    """A person's pattern: RE2, linear time, and quiet. Raises re2.error."""
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


# A name and a number, in linear time.
LABELLED = compiled(
    r"\b([A-Za-z][A-Za-z0-9]*(?:[ _/.-][A-Za-z][A-Za-z0-9]*){0,4})[\"']?[ \t]*(?:[:=|]|->)?[ \t]*"
    r"([-+]?[0-9.][0-9.,]*)"
)


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
    _pattern: str = ""
    _nears: int = 0  # lines that hold the metric's name and a number
    _last: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_LAST))

    def __post_init__(self) -> None:
        self._plain = re.compile(rf"^{re.escape(self.name)}:[ \t]*(\S*)[ \t]*$")
        self._matches = compiled(self.pattern) if self.pattern else None
        self._mention = re.compile(
            rf"({re.escape(self.name)}[^0-9]{{0,20}}?)(?:{NUMBER.pattern})", re.IGNORECASE
        )

    def feed(self, text: str) -> None:
        """One line of output."""
        line = ESCAPE.sub("", text)[:MAX_LINE]
        if line == "---":
            self.summary.clear()
        if self._matches is not None:
            found = [_whole(match, line) for match in self._matches.finditer(line)]
        else:
            found = self._plain.findall(line)
            if not found:
                self._look(line)
        for one in found:
            self._count += 1
            self._texts = [*self._texts, one][-MAX_SEEN:]
        if not found and (match := SUMMARY_LINE.match(line)) and len(self.summary) < MAX_SUMMARY:
            self.summary[match[1]] = match[2].strip()

    def _look(self, line: str) -> None:
        """Remember a line that comes near, best one with a number, and the last ones."""
        self._last.append(line)
        if self.name.lower() not in line.lower():
            return
        if near := self._mention.search(line):
            self._near, self._pattern = line.strip(), _pattern_for(near[1])
            self._nears += 1
        elif not self._pattern:
            self._near = line.strip()

    def result(self) -> tuple[float | None, str, str]:
        """The metric, or None with the class of failure (`no_metric`, `nan`) and why."""
        if not self._count:
            what = f"match of {self.pattern!r}" if self.pattern else f"line `{self.name}: NUMBER`"
            return None, "no_metric", f"the trial printed no {what}{self._hint()}"
        if self._count > 1 and not self.take_last:
            seen = ", ".join(text[:30] for text in self._texts)
            quoted = (self.pattern or "").replace("'", "''")
            pattern = f", pattern: '{quoted}'" if quoted else ""
            take = f"`metric: {{name: {self.name}{pattern}, take: last}}`"
            which = f"which one? {take} {IN_FILE} lets the last one count"
            why = f"the trial printed {self.name} {self._count} times ({seen}): {which}"
            return None, "no_metric", why
        text = self._texts[-1]
        if NOT_FINITE.fullmatch(text):
            return None, "nan", f"{self.name} is {text}"
        if not NUMBER.fullmatch(text):
            return None, "no_metric", f"{self.name} is {text[:60]!r}, not a number{self._way(text)}"
        value = float(text)
        if not math.isfinite(value):
            return None, "nan", f"{self.name} is {value}"
        if self.name.endswith("bpb") and value < 0:
            return None, "no_metric", f"{self.name} is {value}: bits per byte can't be below 0"
        return value, "", ""

    def _way(self, text: str) -> str:
        """What a person may do whose metric is `tensor(1.2)` or `12,618`."""
        if THOUSANDS.match(text):
            return ": print it without commas"
        number = None if self.pattern else WHOLE.search(text)
        if number is None:
            return ""
        pattern = _pattern_for(f"{self.name}: {text[: number.start()]}")
        return (
            f"; for its form, write `metric: {{name: {self.name}, pattern: '{pattern}'}}` {IN_FILE}"
        )

    def _hint(self) -> str:
        """What a person may do whose trial printed something else."""
        if self._near:
            last = ", take: last" if self._nears > 1 else ""
            return (
                f" that is alone on a line. One comes near: {self._near[:200]!r}; for its form, "
                f"write `metric: {{name: {self.name}, pattern: '{self._pattern or UNKNOWN_FORM}'"
                f"{last}}}` {IN_FILE}"
            )
        numbers = [name for name, value in self.summary.items() if NUMBER.fullmatch(value)]
        numbers.sort(key=_rank, reverse=True)
        label = max(_labels(self._last), key=lambda one: one.rank, default=None)
        if label and (not numbers or _rank(numbers[0]) < label.rank):
            return label.hint()
        if not numbers:
            return ": print it at the end of the trial, or name the number that is printed"
        return (
            f". It printed numbers called {', '.join(numbers[:MAX_NAMED])}: if one of them is it, "
            f"{_named(numbers[0])}"
        )


class _Label:
    """A number in a line, and what it is called there."""

    def __init__(self, match: Any, line: str) -> None:
        self.name = re.sub(r"[ _/.-]+", "_", match[1].strip(" _/.-"))
        self.rank = _rank(self.name)
        self.times = 1
        self._line = line.strip()
        self._number = match[2]
        self._before = line[match.start(1) : match.start(2)]

    def hint(self) -> str:
        """What to write where this is the metric."""
        seen = f". It printed {self._line[:200]!r}"
        if THOUSANDS.match(self._number):
            return f"{seen}: a metric has no commas, print {self.name} without"
        if self.times == 1 and re.fullmatch(rf"{self.name}:[ \t]+{NUMBER.pattern}", self._line):
            return f"{seen}: if {self.name} is it, {_named(self.name)}"
        take = ", take: last" if self.times > 1 else ""
        higher = "`, `minimize: false" if _words(self.name) & HIGHER else ""
        pattern = _pattern_for(self._before)
        return (
            f"{seen}: if {self.name} is it, write `metric: {{name: {self.name}, pattern: "
            f"'\\b{pattern}'{take}}}{higher}` {IN_FILE}"
        )


def _named(name: str) -> str:
    return (
        f"name it, with --metric {name} (task script; and --maximize if higher is better) or "
        f"`metric: {name}` {IN_FILE}"
    )


def _labels(lines: Iterable[str]) -> list[_Label]:
    """The numbers in these lines that have the name of a measure, the last of each name."""
    found: dict[str, _Label] = {}
    for line in lines:
        for match in LABELLED.finditer(line):
            label = _Label(match, line)
            if label.rank:
                label.times += found[label.name].times if label.name in found else 0
                found[label.name] = label
    return list(found.values())


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", name.lower()))


def higher_is_better(name: str) -> bool:
    """Whether a metric of this name can hardly be meant to be low."""
    words = _words(name)
    return bool(words & (HIGHER - {"score", "map", "return"})) and not words & LOWER


def _rank(name: str) -> int:
    """How much a name sounds like the metric: 0, not at all; more, if it is of held-out data."""
    words = _words(name)
    if not words & (HIGHER | LOWER) or len(name) > MAX_NAME:
        return 0
    return 2 + len(words & HELD_OUT) - ("train" in words)


def _whole(match: Any, line: str) -> str:
    """What a pattern's group found; with the thousands, where it ends at a comma before them."""
    text = match.group(1) or ""
    if match.end() == match.end(1) and re.fullmatch(r"[-+]?[0-9]{1,3}", text):
        more = THOUSANDS.match(line, match.start(1))
        return more[0] if more else text
    return text


def _pattern_for(before: str) -> str:
    """A pattern for the number after this text, as a person can paste it into YAML's quotes."""
    quoted = SPECIAL.sub(r"\\\g<0>", before).replace("'", "''")
    spaced = re.sub(" +", " +", re.sub(r" *\t[ \t]*", r"\\s+", quoted))  # columns' widths differ
    return "".join(c if c.isprintable() else "." for c in spaced) + ANY_NUMBER
