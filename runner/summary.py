"""What a run's folder says to people: its trials and where each is kept, what became of its drafts,
and what language models cost.

Only reads, also beside a runner that works in the folder. It judges nothing.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from runner.loop.baseline import best_of
from runner.settings import LEDGER
from runner.storage.journal import Entry, derive, entry_of
from runner.storage.store import DATABASE, JournalError


def of_drafts(folder: Path) -> Iterator[str]:
    """A line for each draft, a count of each state, and the ledger. Raises JournalError."""
    rows, told = _drafts(folder)
    for row in rows:
        title = row["title"] or told[row["draft_id"]].get("title") or "no draft"
        where = f", proposal {row['proposal']} is {row['remote']}" if row["proposal"] else ""
        why = f": {row['reason']}" if row["reason"] else ""
        yield f"after trial {row['after_trial']}: {row['state']}{where}: {title}{why}"
    yield f"drafts: {_states(rows, told) or 'no drafts'}"
    yield from _spent(folder / LEDGER)


def of_end(folder: Path) -> Iterator[str]:
    """How many trials and drafts came to what, by class, and the ledger; for the end of a run.
    Raises JournalError."""
    query = "SELECT status, failure FROM trials WHERE phase = 'decided' AND number > 0"
    if trials := _counted((row["status"], row["failure"]) for row in _rows(folder, query)):
        yield f"trials: {trials}"
    steered = [json.loads(row["value"]) for row in _rows(folder, "SELECT value FROM steering")]
    failed = sum(any(r.startswith("failed: ") for r in of["reasons"]) for of in steered)
    if failed:
        yield f"Level 1.5: {len(steered)} times, of which {failed} failed and changed nothing"
    rows, told = _drafts(folder)
    if rows:
        yield f"drafts: {_states(rows, told)}"
    yield from _spent(folder / LEDGER)


def _drafts(folder: Path) -> tuple[list[sqlite3.Row], dict[str, dict[str, Any]]]:
    """The drafts without their content, and what is told of each."""
    columns = (
        "draft_id, after_trial, state, proposal, remote, reason, "
        "json_extract(draft, '$.title') AS title"
    )
    rows = _rows(folder, f"SELECT {columns} FROM drafts ORDER BY after_trial")  # noqa: S608
    meta = _rows(folder, "SELECT key, value FROM meta WHERE key LIKE 'level2/%'")
    found = {row["key"].removeprefix("level2/"): json.loads(row["value"]) for row in meta}
    return rows, {row["draft_id"]: found.get(row["draft_id"], {}) for row in rows}


def _states(rows: list[sqlite3.Row], told: dict[str, dict[str, Any]]) -> str:
    return _counted((r["remote"] or r["state"], _rule(r, told[r["draft_id"]])) for r in rows)


def _rule(row: sqlite3.Row, told: dict[str, Any]) -> str:
    """The class of what was wrong with a draft; the platform's door says it before a colon."""
    if row["remote"] == "failed":
        return "at the gate"
    code = str(row["reason"]).partition(":")[0] if row["state"] == "refused" else ""
    return str(told.get("rule") or (code if code.isidentifier() else ""))


def _counted(states: Iterable[tuple[str, str]]) -> str:
    """`3 kept, 2 failed (1 crash, 1 oom)`, from pairs of a state and a class."""
    classes: dict[str, Counter[str]] = {}
    for state, rule in states:
        classes.setdefault(state, Counter()).update([rule])
    parts = []
    for state, rules in sorted(classes.items()):
        named = ", ".join(f"{count} {rule}" for rule, count in sorted(rules.items()) if rule)
        parts.append(f"{rules.total()} {state}" + (f" ({named})" if named else ""))
    return ", ".join(parts)


def of_trials(folder: Path) -> Iterator[str]:
    """A line for each trial with its folder, then the best. Raises JournalError."""
    entries = [entry_of(row) for row in _rows(folder, "SELECT * FROM trials ORDER BY number")]
    told = {str(row["key"]): row["value"] for row in _rows(folder, "SELECT * FROM meta")}
    try:
        seed = int(json.loads(told["identity"])["seed"])
        report: dict[str, Any] = json.loads(told.get("run_report", "{}"))
    except (ValueError, LookupError, TypeError) as error:
        raise JournalError(f"{folder / DATABASE} can't be read: {error!r}") from error
    kept = kept_by_seed(folder)
    for entry in entries:
        result = "" if entry.metric is None else f" {report.get('metric', '')} {entry.metric:.6g}"
        why = f" ({entry.failure})" if entry.failure else ""
        changes = ", ".join(f"{k}={v}" for k, v in entry.changes.items()) or "no change"
        where = kept.get(derive(seed, entry.number, "train"))
        place = f"; in {where}" if where else ""
        status = entry.status or entry.phase.value
        yield f"trial {entry.number}: {status}{why}{result}: {changes}{place}"
    if any(entry.status == "kept" for entry in entries) and "minimize" in report:
        found = best_of(entries, minimize=bool(report["minimize"]))
        yield from of_best(folder, entries[0], found, seed=seed)


def of_best(folder: Path, baseline: Entry, best: Entry, *, seed: int) -> Iterator[str]:
    """What makes the best trial better than the baseline, and where it is kept."""
    if best.number == baseline.number:
        return
    changes = ", ".join(
        f"{name} {baseline.config.get(name)} -> {value}"
        for name, value in best.config.items()
        if baseline.config.get(name) != value
    )
    yield f"trial {best.number} is the baseline with {changes or 'no change'}"
    if where := kept_by_seed(folder).get(derive(seed, best.number, "train")):
        yield f"what trial {best.number} ran and printed is in {where}"


def kept_by_seed(folder: Path) -> dict[int, Path]:
    """The folders of trainings that a task kept, by the seed of each; the last one counts."""
    found = {}
    for path in sorted(folder.glob("trials/*/trial.json")):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):  # cut off
            found[int(json.loads(path.read_text(encoding="utf-8"))["seed"])] = path.parent
    return found


def _rows(folder: Path, query: str) -> list[sqlite3.Row]:
    path = folder / DATABASE
    if not path.is_file():
        raise JournalError(f"{folder} holds no run: give the folder of `run --out`")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            db.row_factory = sqlite3.Row
            return db.execute(query).fetchall()
    except sqlite3.Error as error:
        raise JournalError(f"{path} can't be read: {error}") from error


def _spent(path: Path) -> Iterator[str]:
    if not path.is_file():
        return
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        models = kept.get("models", {})
        yield (
            f"language models: {kept['calls']} calls, {kept['prompt_tokens']} tokens asked, "
            f"{kept['answer_tokens']} answered, cost {kept.get('cost', 0.0):.4f}"
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise JournalError(f"{path} can't be read: {error}") from error
    for name, of in sorted(models.items()):
        told = ", ".join(f"{what} {count}" for what, count in sorted(of.items()))
        yield f"  {name or 'unnamed'}: {told}"
