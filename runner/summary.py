"""What a run's folder says to people: what became of its drafts, and what language models cost.

Only reads, also beside a runner that works in the folder. It judges nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from runner.settings import LEDGER
from runner.store import DATABASE, JournalError


def of_drafts(folder: Path) -> Iterator[str]:
    """A line for each draft, a count of each state, and the ledger. Raises JournalError."""
    rows = _drafts(folder)
    for row in rows:
        body = json.loads(row["draft"]) if row["draft"] else {}
        title = body.get("title") or "no draft"
        where = f", proposal {row['proposal']} is {row['remote']}" if row["proposal"] else ""
        why = f": {row['reason']}" if row["reason"] else ""
        yield f"after trial {row['after_trial']}: {row['state']}{where}: {title}{why}"
    counts = Counter(row["remote"] or row["state"] for row in rows)
    told = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no drafts"
    yield f"drafts: {told}"
    yield from _spent(folder / LEDGER)


def _drafts(folder: Path) -> list[sqlite3.Row]:
    path = folder / DATABASE
    if not path.is_file():
        raise JournalError(f"{folder} holds no run: give the folder of `run --out`")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            db.row_factory = sqlite3.Row
            return db.execute("SELECT * FROM drafts ORDER BY after_trial").fetchall()
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
