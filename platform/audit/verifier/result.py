"""What a verification finds: problems, each with its kind and entry, and how they are told."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What is wrong."""

    EDITED = "edited"  # an entry is not what it was
    COLUMN_EDITED = "column edited"  # a column beside the entry differs from it
    REMOVED = "removed"  # an entry in the middle is gone
    TAIL_CUT = "tail cut"  # the newest entries are gone
    REORDERED = "reordered"
    DUPLICATED = "duplicated"
    GAP = "gap"  # numbers are skipped though the chain holds
    FORK = "fork"  # two histories: two entries with one number, or a signature on another past
    HEAD = "head"  # the head is missing or edited
    HEAD_ROLLED_BACK = "head rolled back"
    WRONG_KEY = "wrong key"
    BAD_SIGNATURE = "bad signature"
    CHECKPOINT = "checkpoint"  # missing or edited
    TRIGGER = "trigger"  # the database does not protect the log any more
    RULE = "rule"  # the log is whole and tells of something that was not allowed
    ROW = "row"  # a row of the platform is not what the log says
    FILE = "file"  # a file of the bundle is missing, extra or changed


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong; `seq` is the entry, if it is about one."""

    kind: Kind
    seq: int | None
    message: str

    def __str__(self) -> str:
        where = f"entry {self.seq}: " if self.seq is not None else ""
        return f"{self.kind}: {where}{self.message}"


@dataclass(kw_only=True)
class Result:
    """What a verification found. `facts` is what the log says of each proposal, activation ..."""

    entries: int = 0
    head: str = ""
    key: str = ""
    pinned: bool = False
    signatures: str = "checked"  # or "not checked"
    problems: list[Problem] = field(default_factory=list)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether everything was looked at and holds."""
        return not self.problems and self.signatures == "checked"

    @property
    def exit_code(self) -> int:
        """0 ok, 1 tampered, 2 could not look."""
        return 1 if self.problems else 0 if self.ok else 2


def report(result: Result) -> str:
    """The result in words."""
    lines = [str(p) for p in result.problems]
    if result.signatures != "checked":
        lines.append(
            "signatures NOT CHECKED, so this is not ok: `pip install cryptography`, run it again"
        )
    if not result.pinned and result.key:
        lines.append(f"note: the key came with the log; compare it with yours: {result.key}")
    word = "ok" if result.ok else "TAMPERED" if result.problems else "could not look"
    lines.append(f"{word}: {result.entries} entries, {len(result.problems)} problems")
    return "\n".join(lines)


def as_json(result: Result) -> str:
    """The result as JSON, for programs."""
    data = {
        "ok": result.ok,
        "entries": result.entries,
        "head": result.head,
        "key": result.key,
        "key_pinned": result.pinned,
        "signatures": result.signatures,
        "problems": [asdict(p) for p in result.problems],
    }
    return json.dumps(data, indent=2)
