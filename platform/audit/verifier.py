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
        row = stored.get("seq", self._rows)
        if type(row) is not int:
            self.say(Kind.COLUMN_EDITED, self._rows, f"its number is {str(row)[:40]!r}")
            row = self._rows
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
        due |= {b["seq"] for b in self.chain.bodies if b["seq"] % CHECKPOINT_EVERY == 0}
        for size in sorted(due - set(sizes)):
            self.chain.say(Kind.CHECKPOINT, size, "its signed checkpoint is missing")


def _sound(head: Mapping[str, Any]) -> bool:
    texts = (head.get(k) for k in ("hash", "root", "key", "signature"))
    return type(head.get("size")) is int and all(isinstance(t, str) for t in texts)


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
    if head is not None and not _sound(head):
        chain.say(Kind.HEAD, None, "the head does not have the form of a head")
        head = None
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


# --- the rules ---------------------------------------------------------------------------------

# Where each state may lead; "" is "not there yet".
PATHS: dict[str, dict[str, set[str]]] = {
    "proposal": {
        "": {"submitted"},
        "submitted": {"screening", "withdrawn", "expired"},
        "screening": {"passed", "failed", "submitted", "withdrawn", "expired"},
        "passed": {"submitted", "approved", "rejected", "withdrawn", "expired"},
        "approved": {"activating", "passed", "rejected", "expired"},
        "activating": {"live", "refused", "rolled_back", "superseded"},
        "live": {"superseded", "rolled_back"},
        "superseded": {"activating"},
        "rolled_back": {"activating"},
    },
    "activation": {
        "": {"activating"},
        "activating": {"live", "refused", "superseded", "rolled_back"},
        "live": {"superseded", "rolled_back"},
    },
    "review": {"": {"valid"}, "valid": {"consumed", "voided"}},
    "dependency": {
        "": {"asked"},
        "asked": {"unfit", "in_review", "withdrawn", "expired"},
        "in_review": {"approved", "asked", "rejected", "withdrawn", "expired"},
        "approved": {"building", "in_review", "asked", "rejected", "withdrawn", "expired"},
        "building": {"build_failed", "adopted"},
        "build_failed": {"approved", "in_review", "asked", "rejected", "withdrawn", "expired"},
        "adopted": {"revoked"},
        "revoked": {"adopted"},
    },
    "dependency-review": {"": {"valid"}, "valid": {"consumed", "voided"}},
    "operator": {"": {"nominated", "approved"}, "nominated": {"approved", "declined"}}
    | {"approved": {"revoked"}},
}
# The only verb that leads to a state.
ONLY_BY = {
    ("proposal", "submitted", ""): "proposal.submitted",
    ("proposal", "passed", "screening"): "screening.finished",
    ("proposal", "failed", "screening"): "screening.finished",
    ("proposal", "approved", "passed"): "review.approved",
    ("proposal", "rejected", "passed"): "review.rejected",
    ("proposal", "rejected", "approved"): "review.rejected",
    ("review", "consumed", "valid"): "activation.requested",
    ("dependency", "approved", "in_review"): "dependency.approved",
    ("dependency", "adopted", "building"): "dependency.adopted",
    ("dependency", "adopted", "revoked"): "lock.rolled_back",
    ("dependency", "revoked", "adopted"): "lock.rolled_back",
    ("dependency-review", "consumed", "valid"): "dependency.adopted",
    ("operator", "approved", ""): "operator.entered",
    ("operator", "approved", "nominated"): "operator.approved",
    **{
        (what, state, before): verb
        for what in ("proposal", "activation")
        for state, verb in (("activating", "activation.requested"), ("live", "activation.live"))
        for before in ("", "approved", "superseded", "rolled_back", "activating")
    },
}


class Rules:
    """Replays what the log tells, entry by entry, and says what was not allowed."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.facts: dict[str, dict[str, Any]] = {}
        self._submitted: dict[int, dict[str, Any]] = {}
        self._author: dict[int, dict[str, str]] = {}
        self._screened: dict[int, dict[str, Any]] = {}
        self._reviews: dict[int, dict[str, Any]] = {}
        self._activations: dict[int, dict[str, Any]] = {}
        self._was_live: set[int] = set()
        self._activated: set[int] = set()
        self._policy: dict[str, Any] = {}
        self._stops: set[str] = set()
        self._words: dict[int, dict[str, str]] = {}
        self._packages: dict[int, dict[str, Any]] = {}
        self._assents: dict[int, dict[str, Any]] = {}
        self._locks: dict[int, str] = {}
        self._body: Mapping[str, Any] = {}

    def read(self, body: Mapping[str, Any]) -> None:
        """Take up one sound entry."""
        self._body = body
        handler = getattr(self, "_on_" + body["verb"].replace(".", "_"), None)
        try:
            if handler is not None:
                handler(body["data"])
            for move in body["data"].get("moves", []):
                self._move(str(move["of"]), str(move["from"]), str(move["to"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._say(f"{body['verb']} does not have the data that it must have ({error!r})")

    def _say(self, message: str) -> None:
        self.problems.append(Problem(kind=Kind.RULE, seq=self._body["seq"], message=message))

    def _must(self, holds: object, message: str) -> None:
        if not holds:
            self._say(message)

    def _fact(self, of: str, **known: Any) -> None:
        self.facts.setdefault(of, {}).update(known)

    def _move(self, of: str, before: str, to: str) -> None:
        """Rule 1, order."""
        what, verb = of.partition(":")[0], self._body["verb"]
        known = self.facts.get(of, {}).get("state", "")
        self._must(before == known, f"{of} is said to be '{before}', the log left it '{known}'")
        self._must(
            to in PATHS.get(what, {}).get(before, ()), f"{of} may not go from '{before}' to '{to}'"
        )
        only = ONLY_BY.get((what, to, before), verb)
        self._must(only == verb, f"{of} became '{to}' by {verb} and not by {only}")
        self._fact(of, state=to)
        if what == "activation" and to == "live":
            number = int(of.partition(":")[2])
            self._was_live.add(number)

    # --- what happens to a proposal ---

    def _on_proposal_submitted(self, data: Mapping[str, Any]) -> None:
        number = data["proposal"]
        self._must(number not in self._submitted, f"proposal {number} is submitted twice")
        self._submitted[number] = dict(data)
        self._author[number] = dict(self._body["actor"])
        self._fact(
            f"proposal:{number}",
            target=self._body["target"],
            requester=data["requester"]["id"],
            **{k: data[k] for k in ("name", "digest", "commit", "tree", "base_commit")},
        )

    def _on_proposal_rebased(self, data: Mapping[str, Any]) -> None:
        number = data["proposal"]
        draft = self._submitted[number]
        self._must(data["digest"] == draft["digest"], "other bytes came with the new base")
        valid = [
            n
            for n, review in self._reviews.items()
            if review["proposal"] == number and self.facts[f"review:{n}"].get("state") == "valid"
        ]
        self._must(not valid, f"reviews {valid} were not voided before the commit moved")
        moved = {k: data[k] for k in ("commit", "tree", "base_commit")}
        draft.update(moved)
        self._fact(f"proposal:{number}", **moved)

    def _on_screening_finished(self, data: Mapping[str, Any]) -> None:
        number, outcome = data["proposal"], data["outcome"]
        self._must(self._body["actor"]["kind"] == "system", "a screening is the system's work")
        self._must(
            data["commit"] == self._submitted[number]["commit"], "another commit was screened"
        )
        ends = {m["to"] for m in data.get("moves", []) if m["of"] == f"proposal:{number}"}
        self._must("passed" not in ends or outcome == "passed", f"it passed, being {outcome}")
        self._screened[number] = dict(data)
        self._fact(
            f"screening:{data['screening']}",
            outcome=outcome,
            evidence_digest=data["evidence_digest"],
            policy_digest=data["policy_digest"],
            report=data["evidence_digest"],
            proposal=number,
        )

    def _on_review_approved(self, data: Mapping[str, Any]) -> None:
        self._review(data, "approve")
        self._four_eyes(data)
        self._binding(data)

    def _on_review_rejected(self, data: Mapping[str, Any]) -> None:
        self._must(self._body["actor"]["kind"] == "person", "only a person rejects")
        self._review(data, "reject")

    def _review(self, data: Mapping[str, Any], decision: str) -> None:
        number, actor = data["review"], self._body["actor"]
        self._must(number not in self._reviews, f"review {number} is there twice")
        self._reviews[number] = {**data, "decision": decision, "actor": actor}
        self._fact(
            f"review:{number}",
            decision=decision,
            reviewer=actor["id"] if actor["kind"] == "person" else "",
            by_policy=actor["id"] if actor["kind"] == "policy" else "",
            proposal=data["proposal"],
            binding_digest=data["binding_digest"],
            binding=data["binding_digest"],
            reason=self._body["reason"],
        )

    def _four_eyes(self, data: Mapping[str, Any]) -> None:
        """Rule 2. An account is compared by its id; a token or the system approves nothing."""
        number, actor = data["proposal"], self._body["actor"]
        if actor["kind"] == "policy":
            verdict = self._screened[number]["verdict"]
            self._must(actor["id"] == self._policy.get("digest"), "that policy is not in force")
            self._must(self._policy.get("mode") == "guarded", "the policy is not in guarded mode")
            self._must(verdict["decision"] == "allow", "the verdict does not allow it by itself")
            self._must(not self._stops, "autonomy is stopped")
            return
        self._must(actor["kind"] == "person", f"a {actor['kind']} approved, and is no person")
        draft, author = self._submitted[number], self._author[number]
        excluded = {
            "requester": draft["requester"]["id"],
            "operator of the runner": (draft["operator"] or {}).get("id"),
            "author": author["id"] if author["kind"] == "person" else None,
            "editor of the policy in force": (self._policy.get("editor") or {}).get("id"),
        }
        for role, person in excluded.items():
            self._must(person != actor["id"], f"four eyes: {actor['name']} approved, being {role}")
        same = [
            r
            for n, r in self._reviews.items()
            if n != data["review"] and r["proposal"] == number and r["decision"] == "approve"
            if r["actor"] == actor and self.facts[f"review:{n}"].get("state") == "valid"
        ]
        self._must(not same, f"{actor['name']} approved twice")

    def _binding(self, data: Mapping[str, Any]) -> None:
        """Rule 3."""
        number, binding = data["proposal"], data["binding"]
        draft, screened = self._submitted[number], self._screened[number]
        computed = sha256(canonical(binding))
        self._must(data["binding_digest"] == computed, "the binding's digest is not its own")
        said: dict[str, Any] = {
            "proposal": number,
            "target": self.facts[f"proposal:{number}"]["target"],
            "policy_digest": self._policy.get("digest"),
            **{k: draft[k] for k in ("commit", "tree", "digest", "base_commit")},
            **{k: screened[k] for k in ("evidence_digest", "image_id")},
        }
        for name, value in said.items():
            self._must(binding[name] == value, f"the approval binds to another {name}")
        self._must(
            screened["policy_digest"] == binding["policy_digest"], "screened by another policy"
        )
        self._must(screened["outcome"] == "passed", "its screening did not pass")
        self._must(screened["verdict"]["decision"] != "deny", "the verdict denies it")

    # --- what happens to a target ---

    def _on_activation_requested(self, data: Mapping[str, Any]) -> None:
        """Rule 4."""
        number, target = data["activation"], self._body["target"]
        earlier = [a for a in self._activations.values() if a["target"] == target]
        version = max((a["version"] for a in earlier), default=0) + 1
        self._must(number not in self._activations, f"activation {number} is there twice")
        self._must(data["version"] == version, f"version {data['version']} is not {version}")
        kind = data["kind"]
        if kind in {"approval", "policy"}:
            self._approved(data)
        elif kind == "seed":
            self._must(not earlier, "a seed is the first of its target")
        elif kind in {"rollback", "auto_rollback", "revert"}:
            restored = self._activations.get(data["restores"], {})
            same = (restored.get("target"), restored.get("digest")) == (target, data["digest"])
            self._must(
                same and data["restores"] in self._was_live,
                f"a {kind} restores what was live on this target, and this was not",
            )
        else:
            self._say(f"'{kind}' is no kind of activation")
        self._activations[number] = {**data, "target": target}
        self._fact(
            f"activation:{number}",
            target=target,
            attested="",
            **{k: data[k] for k in ("kind", "version", "digest", "commit", "proposal")},
        )
        self._fact(f"target:{target}", desired_version=version, desired_digest=data["digest"])

    def _approved(self, data: Mapping[str, Any]) -> None:
        number, at = data["proposal"], self._body["at"]
        draft, verdict = self._submitted[number], self._screened[number]["verdict"]
        self._must(number not in self._activated, "this proposal was activated by approval before")
        self._activated.add(number)
        for name in ("digest", "commit"):
            self._must(data[name] == draft[name], f"the {name} is not the approved one")
        approvals = [self._reviews[n] for n in data["approvals"]]
        used = {m["of"] for m in data.get("moves", []) if m["to"] == "consumed"}
        for review in approvals:
            of = f"review:{review['review']}"
            valid = self.facts[of].get("state") == "valid"
            self._must(valid, f"{of} is {self.facts[of].get('state')}, not valid")
            self._must(review["decision"] == "approve", f"{of} is no approval")
            self._must(review["proposal"] == number, f"{of} is about another proposal")
            self._must(review.get("expires_at", "") > at, f"{of} had expired")
            self._must(of in used, f"{of} is not consumed by it")
            same = review["binding_digest"] == data["binding_digest"]
            self._must(same, f"{of} binds to something else")
            bound = review.get("binding", {})
            self._must(bound.get("target") == self._body["target"], f"{of} is for another target")
            in_force = bound.get("policy_digest") == self._policy.get("digest")
            self._must(in_force, f"{of} was given under a policy that is not in force")
        who = {(r["actor"]["kind"], r["actor"]["id"]) for r in approvals}
        if data["kind"] == "policy":
            by_policy = ("policy", self._policy.get("digest")) in who
            self._must(by_policy and not self._stops, "not by the policy, or autonomy is stopped")
            return
        people = len([kind for kind, _ in who if kind == "person"])
        quorum = max(1, verdict["quorum"])
        self._must(people >= quorum, f"{people} people approved, {quorum} were needed")

    def _on_activation_live(self, data: Mapping[str, Any]) -> None:
        """Rule 5."""
        asked, target = self._activations[data["activation"]], self._body["target"]
        self._must(self._body["actor"]["kind"] == "runner", "only a runner attests")
        same = data["digest_attested"] == data["digest"] == asked["digest"]
        self._must(same, "the attested digest is not the one that was requested")
        self._must(asked["target"] == target, "it was requested for another target")
        self._must(data["version"] == asked["version"], "it was requested as another version")
        leaving = {m["of"] for m in data.get("moves", []) if m["from"] == "live"}
        others = [
            n
            for n, a in self._activations.items()
            if a["target"] == target and n != data["activation"]
            if self.facts[f"activation:{n}"].get("state") == "live"
            if f"activation:{n}" not in leaving
        ]
        self._must(not others, f"activation {others} of this target is live too")
        self._fact(f"activation:{data['activation']}", attested=data["digest_attested"])
        self._fact(f"target:{target}", live_version=data["version"], live_digest=data["digest"])

    def _on_target_rolled_back(self, data: Mapping[str, Any]) -> None:
        self._must(self._body["actor"]["kind"] != "runner", "a runner rolls nothing back")
        of = f"activation:{data['activation']}"
        ended = any(m["of"] == of and m["to"] == "rolled_back" for m in data.get("moves", []))
        self._must(ended, f"{of} is not moved to rolled_back")

    def _operator(self, data: Mapping[str, Any]) -> None:
        names = ("name", "kind", "commit", "digest", "statement", "terms_digest")
        self._fact(f"operator:{data['operator']}", **{name: data[name] for name in names})

    _on_operator_nominated = _operator

    def _on_operator_entered(self, data: Mapping[str, Any]) -> None:
        seed = data["kind"] == "seed" and self._body["actor"]["kind"] == "system"
        self._must(seed, "only the platform enters operators alone, and those of the seed alone")
        self._operator(data)

    def _on_operator_agreed(self, data: Mapping[str, Any]) -> None:
        """Rule 6: each word is of an independent person."""
        actor, draft = self._body["actor"], self._submitted[data["proposal"]]
        others = (draft["requester"], draft["operator"], self._policy.get("editor"))
        own = actor["id"] in {other["id"] for other in others if other}
        held = actor["kind"] == "person" and not own
        self._must(held, f"four eyes: {actor['name']} agreed to an operator that is their own")
        self._words.setdefault(data["operator"], {})[actor["id"]] = data["terms_digest"]

    def _on_operator_approved(self, data: Mapping[str, Any]) -> None:
        words = list(self._words.get(data["operator"], {}).values()).count(data["terms_digest"])
        self._must(words >= max(1, data["quorum"]), f"{words} people agreed: too few")
        self._operator(data)

    # --- packages of the sandbox image ---

    def _on_dependency_asked(self, data: Mapping[str, Any]) -> None:
        number = data["dependency"]
        self._packages[number] = {**data, "author": self._body["actor"]["id"]}
        known = {name: data[name] for name in ("package", "version")}
        self._fact(f"dependency:{number}", requester=data["requester"]["id"], **known)

    def _on_dependency_recorded(self, data: Mapping[str, Any]) -> None:
        names = ("record_digest", "lock_before", "lock_after")
        known = {name: data[name] for name in names}
        self._packages[data["dependency"]].update(known)
        known.pop("lock_before")
        self._fact(f"dependency:{data['dependency']}", **known)

    def _on_dependency_approved(self, data: Mapping[str, Any]) -> None:
        """Rule 7: by an independent person, of exactly what was recorded."""
        number, actor, binding = data["dependency"], self._body["actor"], data["binding"]
        asked = self._packages[number]
        self._must(actor["kind"] == "person", f"a {actor['kind']} approved, and is no person")
        editor = (self._policy.get("editor") or {}).get("id")
        own = actor["id"] in {asked["requester"]["id"], asked["author"], editor}
        self._must(not own, f"four eyes: {actor['name']} approved a package of their own")
        computed = sha256(canonical(binding))
        self._must(data["binding_digest"] == computed, "the binding's digest is not its own")
        names = ("dependency", "package", "version", "record_digest", "lock_before", "lock_after")
        for name in names:
            self._must(binding[name] == asked[name], f"the approval binds to another {name}")
        in_force = binding["policy_digest"] == self._policy.get("digest")
        self._must(in_force, "the approval binds to a policy that is not in force")
        self._assent(data, "approve")

    def _on_dependency_rejected(self, data: Mapping[str, Any]) -> None:
        self._must(self._body["actor"]["kind"] == "person", "only a person rejects")
        self._assent(data, "reject")

    def _assent(self, data: Mapping[str, Any], decision: str) -> None:
        number, actor = data["review"], self._body["actor"]
        self._must(number not in self._assents, f"dependency-review:{number} is there twice")
        self._assents[number] = {**data, "person": actor["id"]}
        digest = data["binding_digest"]
        known = {"decision": decision, "reviewer": actor["id"], "reason": self._body["reason"]}
        of = f"dependency-review:{number}"
        self._fact(of, dependency=data["dependency"], binding_digest=digest, binding=digest)
        self._fact(of, **known)

    def _on_dependency_adopted(self, data: Mapping[str, Any]) -> None:
        """Rule 8: the approved lock, on the lock that it was judged against, with the quorum."""
        asked, at = self._packages[data["dependency"]], self._body["at"]
        newest = self._locks.get(max(self._locks, default=0))
        self._must(newest == asked["lock_before"], "it was judged against another lock")
        self._must(data["lock"] == asked["lock_after"], "the lock is not the approved one")
        approvals = [self._assents[n] for n in data["approvals"]]
        for one in approvals:
            of = f"dependency-review:{one['review']}"
            stands = self.facts[of].get("state") == "valid" and one.get("expires_at", "") > at
            self._must(stands, f"{of} does not stand any more")
            same = one["binding_digest"] == data["binding_digest"]
            self._must(same and one["dependency"] == data["dependency"], f"{of} is of another")
        quorum = max([1, *(one["binding"]["quorum"] for one in approvals)])
        people = len({one["person"] for one in approvals})
        self._must(people >= quorum, f"{people} people approved, {quorum} were needed")
        self._locked(data)

    def _on_lock_rolled_back(self, data: Mapping[str, Any]) -> None:
        self._must(self._body["actor"]["kind"] == "person", "only a person rolls a lock back")
        self._must(self._locks.get(data["restores"]) == data["lock"], "that lock never was")
        self._locked(data)

    def _locked(self, data: Mapping[str, Any]) -> None:
        number = data["generation"]
        self._must(number == max(self._locks, default=0) + 1, f"lock {number} does not follow")
        self._locks[number] = data["lock"]
        self._fact(f"lock:{number}", lock=data["lock"], image_id=data["image_id"])

    _on_lock_seeded = _locked

    # --- policy and its stop ---

    def _on_policy_loaded(self, data: Mapping[str, Any]) -> None:
        self._policy = dict(data)
        self._fact(f"policy:{data['digest']}", mode=data["mode"], text=data["digest"])

    def _on_autonomy_stopped(self, data: Mapping[str, Any]) -> None:
        self._stops.add(str(data["stop"]))

    def _on_autonomy_released(self, data: Mapping[str, Any]) -> None:
        self._must(self._body["actor"]["kind"] == "person", "only people release a stop")
        self._stops.discard(str(data["stop"]))


def compare_rows(
    facts: Mapping[str, Mapping[str, Any]],
    rows: Iterable[Mapping[str, Any]],
    *,
    kinds: Iterable[str],
) -> list[Problem]:
    """Rows of the platform (each with `of`, and values of that name) against the log's facts.

    `kinds` (`proposal`, `activation` ...) are those of which every one must be among the rows.
    """
    found, seen = [], set()
    for row in rows:
        of = str(row["of"])
        seen.add(of)
        if of not in facts:
            found.append(f"{of} has a row, and the log does not know it")
            continue
        for name, value in row.items():
            said = _flat(facts[of].get(name))
            if name != "of" and said != _flat(value):
                found.append(f"{of}: {name} is '{_flat(value)}', the log says '{said}'")
    complete = set(kinds)
    gone = [of for of in facts if of not in seen and of.partition(":")[0] in complete]
    found += [f"{of} is in the log, and has no row" for of in gone]
    return [Problem(kind=Kind.ROW, seq=None, message=message) for message in found]


def _flat(value: Any) -> str:
    return "" if value is None else str(value)


# --- an evidence bundle ------------------------------------------------------------------------

MANIFEST_PREFIX = b"escapement evidence manifest v1\n"
# What population.csv must repeat of the log's facts; it has more columns for people.
POPULATION = ("of", "name", "state", "target", "requester", "digest", "commit", "tree")
UNLISTED = {"manifest.json", "manifest.sig"}


class Unreadable(Exception):
    """The bundle can't be looked at."""


def verify_bundle(folder: Path, *, key: str = "") -> Result:
    """Verify an unpacked evidence bundle: its files, its log, and what the files say of the log."""
    try:
        raw = (folder / "manifest.json").read_bytes()
        manifest = json.loads(raw)
        files, stated = dict(manifest["files"]), str(manifest["key"])
        signature = (folder / "manifest.sig").read_text().strip()
        head = json.loads((folder / "audit/head.json").read_bytes())
        lines = (folder / "audit/entries.jsonl").read_bytes().splitlines()
        notes = [p.read_text("utf-8") for p in sorted((folder / "audit/checkpoints").glob("*.txt"))]
        table = csv.DictReader(io.StringIO((folder / "changes/population.csv").read_text("utf-8")))
        population = [{name: row[name] for name in POPULATION} for row in table]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unreadable(f"{folder} is no whole evidence bundle: {error}") from error
    nothing: Mapping[str, Any] = {}
    entries = [(line.decode("utf-8", "replace"), nothing) for line in lines]
    result = verify(entries=entries, head=head, notes=notes, key=key or stated)
    result.pinned = bool(key)
    held = signature_holds(result.key, MANIFEST_PREFIX + raw, signature)
    if held is None:
        result.signatures = "not checked"
    elif not held:
        kind = Kind.WRONG_KEY if stated != result.key else Kind.BAD_SIGNATURE
        result.problems.append(
            Problem(kind=kind, seq=None, message="the manifest's signature does not hold")
        )
    result.problems += _files(folder, files)
    result.problems += compare_rows(result.facts, population, kinds=["proposal"])
    result.problems += _contents(folder, result.facts)
    return result


def _files(folder: Path, files: Mapping[str, str]) -> Iterator[Problem]:
    """Each file against the manifest, both ways."""
    there = {
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if not p.is_dir() and "__pycache__" not in p.parts
    }
    for name in sorted(there - set(files) - UNLISTED):
        yield Problem(kind=Kind.FILE, seq=None, message=f"{name} is not in the manifest")
    for name, digest in sorted(files.items()):
        if name not in there:
            yield Problem(kind=Kind.FILE, seq=None, message=f"{name} is missing")
        elif sha256((folder / name).read_bytes()) != digest:
            yield Problem(kind=Kind.FILE, seq=None, message=f"{name} was changed")


def _contents(folder: Path, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """The files that the log names by digest: each policy, each mechanism, each report."""
    for of, known in facts.items():
        what, _, name = of.partition(":")
        if what == "policy":
            path, digest = f"policies/{name}.yaml", name
        elif what == "proposal":
            path, digest = f"changes/{name}/mechanism.py", str(known.get("digest"))
        elif what == "screening" and known.get("report"):
            path = f"changes/{known['proposal']}/screening-{name}/report.json"
            digest = str(known["report"])
        else:
            continue
        try:
            held = sha256((folder / path).read_bytes()) == digest
        except OSError:
            held = False
        if not held:
            message = f"{path} is not the file that the log names"
            yield Problem(kind=Kind.FILE, seq=None, message=message)


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify the bundle that this file lies in, or the one that is named."""
    parser = argparse.ArgumentParser(description="Verify an evidence bundle of Escapement.")
    parser.add_argument("folder", nargs="?", default=str(Path(__file__).resolve().parent))
    parser.add_argument("--public-key", metavar="FILE", help="the key that you trust, as hex")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    options = parser.parse_args(arguments)
    try:
        key = Path(options.public_key).read_text().strip() if options.public_key else ""
        if key and len(bytes.fromhex(key)) != 32:
            raise ValueError(f"{options.public_key} holds no Ed25519 public key (64 hex digits)")
        result = verify_bundle(Path(options.folder), key=key)
    except (Unreadable, OSError, ValueError) as error:
        sys.stderr.write(f"could not look: {error}\n")
        return 2
    sys.stdout.write((as_json(result) if options.json else report(result)) + "\n")
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main())
