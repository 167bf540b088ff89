"""Verify an audit log: the chain, the signatures, and the rules, from the entries alone.

One file that trusts nothing of the platform. Inside of it, `manage.py verify_audit` uses it; in
an evidence bundle it is `verify.py`:

    python verify.py [--public-key FILE] [--json]

Standard library, and `cryptography` for the signatures: without it they are *not checked*, which
is not "ok". Exit 0: all holds. 1: tampered or a rule broken. 2: could not look.
It does not judge whether an approval was wise.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import io
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

NOTE_ORIGIN = "escapement/audit"
CHECKPOINT_EVERY = 100
CHECKPOINT_VERBS = frozenset(
    {"activation.requested", "activation.live", "target.rolled_back", "policy.loaded"}
    | {"audit.exported", "audit.export_written"}
)
ZEROS = "0" * 64
KEYS = {"v", "seq", "prev", "at", "actor", "verb", "subject", "target", "reason", "data"}


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


# --- bytes, hashes, signatures -----------------------------------------------------------------


def canonical(value: Any) -> bytes:
    """RFC 8785 for data without floats."""

    def ordered(item: Any) -> Any:
        if isinstance(item, float):
            raise ValueError("a float")
        if isinstance(item, dict):
            return {k: ordered(item[k]) for k in sorted(item, key=lambda k: k.encode("utf-16-be"))}
        return [ordered(i) for i in item] if isinstance(item, list) else item

    return json.dumps(ordered(value), separators=(",", ":"), ensure_ascii=False).encode()


def sha256(data: bytes) -> str:
    """SHA-256 as hex."""
    return hashlib.sha256(data).hexdigest()


def _grow(frontier: list[bytes], size: int, leaf: bytes) -> list[bytes]:
    """RFC 6962: the roots of the full subtrees after one more leaf."""
    grown = list(frontier)
    while size & 1:
        leaf = hashlib.sha256(b"\x01" + grown.pop() + leaf).digest()
        size >>= 1
    return [*grown, leaf]


def _root(frontier: Sequence[bytes]) -> str:
    if not frontier:
        return sha256(b"")
    *rest, root = frontier
    for subtree in reversed(rest):
        root = hashlib.sha256(b"\x01" + subtree + root).digest()
    return root.hex()


def head_bytes(*, size: int, hash: str, root: str, key: str) -> bytes:  # noqa: A002 - its name
    """The bytes that are signed for a head."""
    return f"escapement audit head v1\n{size}\n{hash}\n{root}\n{key}\n".encode()


def key_id(key: str) -> bytes:
    """The four bytes that name an Ed25519 key in a signed note."""
    return hashlib.sha256(NOTE_ORIGIN.encode() + b"\n\x01" + bytes.fromhex(key)).digest()[:4]


@dataclass(frozen=True, kw_only=True)
class Note:
    """A parsed checkpoint; `signed` is what `signature` (hex) is about. Nothing is proved yet."""

    size: int
    root: str
    head: str
    at: str
    key: str
    signed: bytes
    signature: str


def parse_note(text: str) -> Note:
    """A checkpoint's fields. Raises ValueError for anything but our form."""
    body, separator, tail = text.partition("\n\n")
    lines, signatures = body.split("\n"), tail.removesuffix("\n").split("\n")
    if not separator or len(lines) != 6 or len(signatures) != 1 or lines[0] != NOTE_ORIGIN:
        raise ValueError("it is not a note of six lines and one signature")
    named = dict(line.partition(" ")[::2] for line in lines[3:])
    prefix = f"\u2014 {NOTE_ORIGIN} "
    if set(named) != {"head", "at", "key"} or not signatures[0].startswith(prefix):
        raise ValueError("head, at, key or signature is missing")
    raw = base64.b64decode(signatures[0].removeprefix(prefix), validate=True)
    root = base64.b64decode(lines[2], validate=True)
    if len(raw) != 68 or len(root) != 32 or str(int(lines[1])) != lines[1]:
        raise ValueError("size, root or signature has a wrong length")
    if raw[:4] != key_id(named["key"]):
        raise ValueError("its signature is of another key than it says")
    return Note(
        size=int(lines[1]),
        root=root.hex(),
        signed=f"{body}\n".encode(),
        signature=raw[4:].hex(),
        **named,
    )


def signature_holds(key: str, data: bytes, signature: str) -> bool | None:
    """Whether the signature is right; None if `cryptography` is not installed."""
    try:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - optional
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
            Ed25519PublicKey,
        )
    except ImportError:
        return None
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(
            bytes.fromhex(signature), data
        )
    except (InvalidSignature, ValueError):
        return False
    return True


# --- the chain ---------------------------------------------------------------------------------


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
        row = int(stored.get("seq", self._rows))
        digest = sha256(b"\x00" + text.encode("utf-8", "surrogatepass"))
        body = _parsed(text)
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
        for seq in range(1, last + 1):
            if seq not in self._digests:
                follower = next(n for n in range(seq, last + 1) if n in self._digests)
                before = next((n for n in range(seq, 0, -1) if n in self._digests), 0)
                linked = self._prevs[follower] == self._digests.get(before, ZEROS)
                kind, why = (
                    (Kind.GAP, "the number is skipped, though the chain holds")
                    if linked
                    else (Kind.REMOVED, "it is gone")
                )
                self.say(kind, seq, why)
            elif seq - 1 in self._digests or seq == 1:
                self._check_link(seq)
        return last

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
            frontier = _grow(frontier, seq - 1, bytes.fromhex(digest))
            if seq in wanted:
                found[seq] = _root(frontier)
        return found


_CHAIN = {Kind.EDITED, Kind.REMOVED, Kind.REORDERED, Kind.DUPLICATED, Kind.GAP, Kind.FORK}


def _parsed(text: str) -> dict[str, Any] | None:
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


# --- what was signed ---------------------------------------------------------------------------


class Signed:
    """Compares a chain with the signed head and the signed notes."""

    def __init__(self, chain: Chain, *, last: int, key: str) -> None:
        self.chain, self.last, self.key = chain, last, key
        self.unchecked = False
        self.agreed = 0  # the longest beginning that a signature covers
        self.claims: list[tuple[int, str, str, str]] = []  # size, root, head, by

    def _genuine(self, key: str, data: bytes, signature: str, what: str) -> bool:
        pinned = self.key or key
        held = signature_holds(pinned, data, signature)
        if held is None:
            self.unchecked = True
            return key == pinned
        if held and key == pinned:
            return True
        other = key != pinned and signature_holds(key, data, signature)
        kind = Kind.WRONG_KEY if other else Kind.BAD_SIGNATURE
        why = f"is signed by another key, {key}" if other else "has a signature that does not hold"
        self.chain.say(kind, None, f"{what} {why}")
        return False

    def head(self, head: Mapping[str, Any] | None) -> None:
        """The head: genuine, and about these entries."""
        if head is None:
            if self.last:
                self.chain.say(Kind.HEAD, None, "the log has entries and no signed head")
            return
        fields = {k: head[k] for k in ("size", "hash", "root", "key")}
        if not self._genuine(head["key"], head_bytes(**fields), head["signature"], "the head"):
            return
        size = int(head["size"])
        self.claims.append((size, head["root"], head["hash"], "the head"))
        if size < self.last:
            self.chain.say(
                Kind.HEAD_ROLLED_BACK,
                size + 1,
                f"the head covers {size} entries and the log has {self.last}: an old head was "
                "put back, or entries were added that nobody signed",
            )

    def notes(self, notes: Iterable[str], what: str) -> list[int]:
        """Checkpoints: genuine, and about these entries. Gives their sizes."""
        sizes = []
        for text in notes:
            try:
                note = parse_note(text)
            except ValueError as error:
                self.chain.say(Kind.CHECKPOINT, None, f"{what} is no signed note: {error}")
                continue
            where = f"{what} at {note.size}"
            if self._genuine(note.key, note.signed, note.signature, where):
                sizes.append(note.size)
                self.claims.append((note.size, note.root, note.head, where))
        return sizes

    def compare(self, head_size: int) -> None:
        """All claims against the entries."""
        size, *_, by = max(self.claims, default=(0, "", "", ""))
        if size > self.last:
            self.chain.say(
                Kind.TAIL_CUT, self.last + 1, f"{by} covers {size} entries: the last are gone"
            )
        if size > head_size:
            self.chain.say(
                Kind.HEAD_ROLLED_BACK, None, f"{by} covers more than the head ({head_size})"
            )
        roots = self.chain.roots(c[0] for c in self.claims)
        for size, root, head, by in sorted(self.claims):
            if not self.chain.whole(size):
                continue  # told already, with the entry
            if roots.get(size, _root(())) == root and self.chain.digest(size) in {head, ""}:
                self.agreed = max(self.agreed, size)
                continue
            if self.chain.roots([size], instead={size: head}).get(size) == root:
                self.chain.say(Kind.EDITED, size, f"it is not the entry that {by} signed")
            else:
                first = self.agreed + 1
                self.chain.say(
                    Kind.FORK, first, f"entries {first} to {size} are not those that {by} signed"
                )
            return

    def due(self, sizes: Sequence[int]) -> None:
        """Checkpoints that must be there and are not."""
        due = {b["seq"] for b in self.chain.bodies if b["verb"] in CHECKPOINT_VERBS}
        due |= set(range(CHECKPOINT_EVERY, self.last + 1, CHECKPOINT_EVERY))
        for size in sorted(due - set(sizes)):
            self.chain.say(Kind.CHECKPOINT, size, "its signed checkpoint is missing")


def verify(
    *,
    entries: Iterable[tuple[str, Mapping[str, Any]]],
    head: Mapping[str, Any] | None,
    notes: Iterable[str],
    key: str = "",
    anchors: Iterable[str] = (),
) -> Result:
    """Verify a log. `entries` are (bytes as text, stored columns) in stored order; `notes` the
    log's own checkpoints; `anchors` those that others remembered; `key` the pinned public key
    (without one, the key that the head names is used, and `pinned` is False)."""
    chain = Chain()
    for text, stored in entries:
        chain.add(text, stored)
    last = chain.finish()
    known = key or (str(head["key"]) if head else "")
    signed = Signed(chain, last=last, key=known)
    signed.head(head)
    sizes = signed.notes(notes, "the checkpoint")
    signed.notes([a for a in anchors if a], "the anchored checkpoint")
    signed.compare(int(head["size"]) if head else 0)
    signed.due(sizes)
    rules = Rules()
    for body in sorted(chain.bodies, key=lambda b: int(b["seq"])):
        rules.read(body)
    return Result(
        entries=len(chain.bodies),
        head=chain.digest(last),
        key=known,
        pinned=bool(key),
        signatures="not checked" if signed.unchecked else "checked",
        problems=[*chain.problems, *rules.problems],
        facts=rules.facts,
    )


class Rules:
    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.facts: dict[str, dict[str, Any]] = {}

    def read(self, body: Mapping[str, Any]) -> None:
        """"""
