"""Traces of other systems, read for what they are: numbers that somebody else wrote down.

Two formats: the `results.tsv` of Karpathy's autoresearch (commit, val_bpb, memory_gb, status,
description; by the names in its first line, as many write one with columns of their own between
those), and JSON lines with a metric each. Every row becomes a trial or is counted and named
as broken; none is dropped, mended or believed beyond its text. Nothing here was measured by us, and
nothing is compared with what was.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from runner.interfaces import LARGEST_METRIC
from runner.tasks.reading import NOT_FINITE, NUMBER

MAX_BYTES = 16 * 1024 * 1024
MAX_ROWS = 100_000
MAX_LINE = 64 * 1024
MAX_TEXT = 2000
BROKEN_NAMED = 50
TSV_HEAD = ("commit", "val_bpb", "memory_gb", "status", "description")
METRIC_NAMES = ("metric", "val_bpb", "loss", "score", "value")
_STATUS = {
    "keep": "kept",
    "kept": "kept",
    "discard": "discarded",
    "discarded": "discarded",
    "crash": "failed",
    "failed": "failed",
}

Status = Literal["kept", "discarded", "failed"]


class ForeignError(ValueError):
    """A file that is no trace at all; the message says what to do."""


class _Broken(Exception):
    """Why one row is no trial."""


@dataclass(frozen=True, kw_only=True)
class ForeignTrial:
    """One row. `metric` is None exactly if it failed; `line` is where it stands in the file."""

    number: int
    line: int
    metric: float | None
    status: Status
    description: str = ""
    commit: str = ""
    memory_gb: float | None = None


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A foreign trace. `broken`: the first rows that are no trials, each with its line and why;
    `broken_count`: how many there are in all."""

    name: str
    format: str
    minimize: bool
    trials: tuple[ForeignTrial, ...]
    broken: tuple[tuple[int, str], ...]
    broken_count: int

    @property
    def best(self) -> float | None:
        """The best metric of a kept trial, as it was written."""
        kept = [t.metric for t in self.trials if t.status == "kept" and t.metric is not None]
        return None if not kept else min(kept) if self.minimize else max(kept)

    def curve(self) -> list[float]:
        """The best kept metric after each trial, from the first kept one on."""
        found: list[float] = []
        pick: Callable[[float, float], float] = min if self.minimize else max
        for trial in self.trials:
            if trial.status == "kept" and trial.metric is not None:
                found.append(pick(found[-1], trial.metric) if found else trial.metric)
            elif found:
                found.append(found[-1])
        return found

    def to_data(self) -> dict[str, Any]:
        """The summary as plain JSON data."""
        count = {
            s: sum(t.status == s for t in self.trials) for s in ("kept", "discarded", "failed")
        }
        return {
            "name": self.name,
            "format": self.format,
            "minimize": self.minimize,
            "trials": len(self.trials),
            **count,
            "best": self.best,
            "broken_count": self.broken_count,
            "broken": [list(row) for row in self.broken],
        }

    def lines(self) -> str:
        """The trials as JSON lines."""
        rows = (json.dumps(asdict(t), sort_keys=True, allow_nan=False) for t in self.trials)
        return "".join(f"{row}\n" for row in rows)


def read_foreign(path: Path, *, minimize: bool = True) -> Foreign:
    """Read a trace; its first line says which format it is. Raises ForeignError."""
    lines = _lines(path)
    head = lines[0].lstrip("\ufeff")
    if (columns := _columns(head)) is not None:
        read = partial(_tsv_row, columns=columns)
        return _trace(path, "results.tsv", lines, read, first=1, minimize=minimize)
    if head.lstrip().startswith("{"):
        lines[0] = head
        return _trace(path, "jsonl", lines, _json_row, first=0, minimize=minimize)
    raise ForeignError(
        f"{path} is neither a results.tsv (first line: {', '.join(TSV_HEAD)}, with tabs; at least "
        "a metric and `status`, each name once) nor JSON "
        f"lines (objects with one of {', '.join(METRIC_NAMES)}); its first line is {head[:80]!r}"
    )


def write_trials(trace: Foreign, path: Path) -> None:
    """The trials as a file of JSON lines. Raises ForeignError where it can't be written."""
    try:
        path.write_text(trace.lines(), encoding="utf-8")
    except OSError as error:
        raise ForeignError(f"cannot write {path}: {error.strerror}") from None


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ForeignError(f"cannot read {path}: {error}") from None
    if len(data) > MAX_BYTES:
        raise ForeignError(f"{path} is larger than {MAX_BYTES} bytes: cut it into parts")
    lines = data.decode("utf-8", errors="replace").split("\n")
    lines = [line.removesuffix("\r") for line in lines]
    if sum(bool(line.strip()) for line in lines[1:]) > MAX_ROWS:
        raise ForeignError(f"{path} has over {MAX_ROWS} rows: cut it into parts")
    if not lines[0].strip():
        raise ForeignError(f"{path} is empty, or its first line is")
    return lines


def _trace(
    path: Path,
    kind: str,
    lines: list[str],
    read: Callable[[str], dict[str, Any]],
    *,
    first: int,
    minimize: bool,
) -> Foreign:
    trials: list[ForeignTrial] = []
    broken: list[tuple[int, str]] = []
    for place, line in enumerate(lines[first:], start=first + 1):
        if not line.strip():
            continue
        try:
            if len(line) > MAX_LINE:
                raise _Broken(f"over {MAX_LINE} characters")
            trials.append(ForeignTrial(number=len(trials), line=place, **read(line)))
        except _Broken as error:
            broken.append((place, str(error)))
    return Foreign(
        name=path.name,
        format=kind,
        minimize=minimize,
        trials=tuple(trials),
        broken=tuple(broken[:BROKEN_NAMED]),
        broken_count=len(broken),
    )


def _columns(head: str) -> tuple[str, ...] | None:
    """The names in the first line of a table, or None where it is no such table's."""
    names = tuple(name.strip().lower() for name in head.split("\t"))
    known = "status" in names and any(name in names for name in METRIC_NAMES)
    plain = all(name.isprintable() for name in names)  # no line ends of another kind among them
    return names if known and plain and len(set(names)) == len(names) else None


def _tsv_row(line: str, *, columns: tuple[str, ...]) -> dict[str, Any]:
    # Tabs in the last column are text; anywhere else nobody can say which cell is which.
    cells = line.split("\t", len(columns) - 1 if columns[-1] == "description" else -1)
    if len(cells) != len(columns):
        raise _Broken(f"{len(cells)} columns, not {len(columns)}")
    row = {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}
    name = next(n for n in METRIC_NAMES if n in row)
    known = _status(row["status"])
    failed = known == "failed"  # what stands for its metric means nothing: 0.000000, or nothing
    value = None if failed else _number(row[name], name)
    if value is not None and value <= 0 and name == "val_bpb":
        raise _Broken(
            f"val_bpb is {row[name]} and the status {row['status']!r}: no training gives that"
        )
    memory = row.get("memory_gb", "")
    absent = not memory and (failed or "memory_gb" not in row)
    return {
        "metric": value,
        "status": known,
        "description": row.get("description", "")[:MAX_TEXT],
        "commit": row.get("commit", "")[:64],
        "memory_gb": None if absent else _number(memory, "memory_gb"),
    }


def _json_row(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise _Broken("no JSON") from None
    if not isinstance(row, dict):
        raise _Broken(f"a {type(row).__name__}, no JSON object")
    name = next((n for n in METRIC_NAMES if n in row), None)
    if name is None:
        raise _Broken(f"none of {', '.join(METRIC_NAMES)} is there")
    metric = None if row[name] is None else _number(row[name], name)
    status = _status(row.get("status", "failed" if metric is None else "kept"))
    if metric is None and status != "failed":
        raise _Broken(f"{name} is null and the status {status!r}")
    memory = row.get("memory_gb")
    return {
        "metric": None if status == "failed" else metric,
        "status": status,
        "description": _text(row, "description", "reason")[:MAX_TEXT],
        "commit": _text(row, "commit")[:64],
        "memory_gb": None if memory is None else _number(memory, "memory_gb"),
    }


def _text(row: dict[str, Any], *names: str) -> str:
    """The first of these that is there; null is no text."""
    return str(next((row[n] for n in names if row.get(n) is not None), ""))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names are there once each: of two numbers, none is the right one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Broken("a name is there twice in one object")
    return found


def _status(text: Any) -> Status:
    known = _STATUS.get(text.strip().lower()) if isinstance(text, str) else None
    if known is None:
        raise _Broken(f"the status is {str(text)[:40]!r}, none of {', '.join(_STATUS)}")
    return known  # type: ignore[return-value]  # the values of _STATUS


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise _Broken(f"{name} is {str(value)[:40]!r}, no number")
    if isinstance(value, str) and not (NUMBER.fullmatch(value) or NOT_FINITE.fullmatch(value)):
        raise _Broken(f"{name} is {value[:40]!r}, no number")
    try:
        number = float(value)
    except OverflowError:
        raise _Broken(f"{name} is {str(value)[:40]!r}, no number") from None
    if not math.isfinite(number):
        raise _Broken(f"{name} is {number}")
    if abs(number) > LARGEST_METRIC:
        raise _Broken(f"{name} is {number}, above {LARGEST_METRIC:g}")
    return number
