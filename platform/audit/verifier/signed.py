"""The entries against what was signed of them: the head, checkpoints, anchors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from audit.verifier.chain import Chain
from audit.verifier.result import Kind
from audit.verifier.signing import head_bytes, parse_note, root_of, signature_holds

CHECKPOINT_EVERY = 100
CHECKPOINT_VERBS = frozenset(
    {"activation.requested", "activation.live", "target.rolled_back", "policy.loaded"}
    | {"audit.exported", "audit.export_written"}
)


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
            if roots.get(size, root_of(())) == root and self.chain.digest(size) in {head, ""}:
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


def has_form(head: Mapping[str, Any]) -> bool:
    texts = (head.get(k) for k in ("hash", "root", "key", "signature"))
    return type(head.get("size")) is int and all(isinstance(t, str) for t in texts)
