"""The entries as they are stored: what was edited, removed, moved or copied among them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from audit.verifier.result import Kind, Problem
from audit.verifier.signing import canonical, grown, root_of, sha256

ZEROS = "0" * 64
KEYS = {"v", "seq", "prev", "at", "actor", "verb", "subject", "target", "reason", "data"}


_CHAIN = {Kind.EDITED, Kind.REMOVED, Kind.REORDERED, Kind.DUPLICATED, Kind.GAP, Kind.FORK}


class Chain:
    """The entries as they are stored, in order; `finish` tells what was done to them."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.bodies: list[dict[str, Any]] = []  # the sound ones, for the rules
        self._digests: dict[int, str] = {}
        self._prevs: dict[int, str] = {}
        self._order: list[int] = []
        self._seen: dict[str, int] = {}
        self._edited: set[int] = set()
        self._rows = 0

    def say(self, kind: Kind, seq: int | None, message: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(kind=kind, seq=seq, message=message))

    def add(self, text: str, stored: Mapping[str, Any]) -> None:
        """One stored entry: its bytes, and what columns say of it (any subset, or nothing)."""
        self._rows += 1
        row = stored.get("seq", self._rows)
        if type(row) is not int:
            self.say(Kind.COLUMN_EDITED, self._rows, f"its number is {str(row)[:40]!r}")
            row = self._rows
        digest = sha256(b"\x00" + text.encode("utf-8", "surrogatepass"))
        body = parsed(text)
        if "digest" in stored and stored["digest"] != digest:
            self.say(Kind.EDITED, row, "its bytes do not have the digest that was stored")
            self._edited.add(row)
            self._place(row, str(stored["digest"]), str(stored.get("prev", "")))
            return
        if body is None:
            self.say(Kind.EDITED, row, "it is no canonical entry")
            self._edited.add(row)
            self._place(row, digest, str(stored.get("prev", "")))
            return
        seq = body["seq"]
        if digest in self._seen:
            self.say(Kind.DUPLICATED, row, f"it is a copy of entry {self._seen[digest]}")
            return
        self._seen[digest] = seq
        if seq in self._digests and seq not in self._edited:
            self.say(Kind.FORK, seq, "two different entries have this number")
            return
        if "seq" in stored and row != seq:
            self.say(Kind.REORDERED, seq, f"it is stored as entry {row}")
        self._compare_columns(seq, body, stored)
        self._place(seq, digest, body["prev"])
        self.bodies.append(body)

    def _place(self, seq: int, digest: str, prev: str) -> None:
        self._digests[seq], self._prevs[seq] = digest, prev
        self._order.append(seq)

    def _compare_columns(
        self, seq: int, body: Mapping[str, Any], stored: Mapping[str, Any]
    ) -> None:
        actor = body["actor"]
        said = {
            **{k: body[k] for k in ("prev", "at", "verb", "subject", "target", "reason")},
            **{f"actor_{k}": actor[k] for k in ("kind", "id", "name")},
        }
        wrong = [name for name, value in said.items() if stored.get(name, value) != value]
        if wrong:
            self.say(Kind.COLUMN_EDITED, seq, f"the columns {', '.join(wrong)} differ from it")

    def finish(self) -> int:
        """Order, gaps and links; gives the highest number that is there."""
        last = max(self._digests, default=0)
        for before, seq in zip(self._order, self._order[1:], strict=False):
            if seq < before:
                self.say(Kind.REORDERED, seq, f"it stands behind entry {before}")
        before = 0
        for seq in sorted(self._digests):
            if seq < 1:
                self.say(Kind.EDITED, seq, "no entry has this number")
            elif seq == before + 1:
                self._check_link(seq)
            else:
                self._missing(before + 1, seq)
            before = max(before, seq)
        return last

    def _missing(self, first: int, follower: int) -> None:
        """Numbers from `first` to the one before `follower` are not there."""
        linked = self._prevs[follower] == self._digests.get(first - 1, ZEROS)
        upto = f" (up to entry {follower - 1})" if follower - 1 > first else ""
        if linked:
            self.say(Kind.GAP, first, f"the number is skipped, though the chain holds{upto}")
        else:
            self.say(Kind.REMOVED, first, f"it is gone{upto}")

    def _check_link(self, seq: int) -> None:
        if self._prevs[seq] == self._digests.get(seq - 1, ZEROS) or seq in self._edited:
            return
        if seq == 1:
            self.say(Kind.REMOVED, 1, "the first entry names one before it")
        elif seq - 1 not in self._edited:
            self._edited.add(seq - 1)
            self.say(Kind.EDITED, seq - 1, f"entry {seq} names another predecessor")

    def whole(self, size: int) -> bool:
        """Whether entries 1 to `size` are there and no problem is known among them."""
        if any(p.seq is None or p.seq <= size for p in self.problems if p.kind in _CHAIN):
            return False
        return all(n in self._digests for n in range(1, size + 1))

    def digest(self, seq: int) -> str:
        """The digest of an entry, "" if it is not there."""
        return self._digests.get(seq, "")

    def roots(
        self, sizes: Iterable[int], *, instead: Mapping[int, str] | None = None
    ) -> dict[int, str]:
        """The Merkle roots at `sizes` (`instead` replaces digests), as far as entries reach."""
        wanted, found, frontier = sorted({n for n in sizes if n > 0}), {}, list[bytes]()
        for seq in range(1, (wanted or [0])[-1] + 1):
            digest = (instead or {}).get(seq) or self.digest(seq)
            if len(digest) != 64:
                break
            frontier = grown(frontier, seq - 1, bytes.fromhex(digest))
            if seq in wanted:
                found[seq] = root_of(frontier)
        return found


def parsed(text: str) -> dict[str, Any] | None:
    """The entry, if `text` is exactly its canonical bytes."""
    try:
        body = json.loads(text)
        sound = (
            isinstance(body, dict)
            and set(body) == KEYS
            and type(body["seq"]) is int
            and isinstance(body["actor"], dict)
            and set(body["actor"]) == {"kind", "id", "name"}
            and isinstance(body["data"], dict)
            and all(isinstance(body[k], str) for k in KEYS - {"v", "seq", "actor", "data"})
            and canonical(body) == text.encode()
        )
    except (ValueError, RecursionError):
        return None
    return body if sound else None
