"""The end of the log under lock: read it, prove it, move it one entry forward.

It refuses to build on an end that its own signature does not cover; what is before the end is the
verifier's business.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.db import DEFAULT_DB_ALIAS, connections

from audit import keys, merkle, triggers
from audit.models import Entry, Head
from audit.verifier import head_bytes

# Any constant will do, as long as nobody else uses it: "audit" on a telephone.
ADVISORY_LOCK = 28348


class AuditError(RuntimeError):
    """The act can't be recorded, and so must not happen; the message says what to do."""


class OutsideTransaction(AuditError):
    """An entry without the transaction of what it records."""


class LogBroken(AuditError):
    """The end of the log is not what was signed."""


@dataclass(frozen=True, kw_only=True)
class Tip:
    """Where the log ends: `hash` of the last entry, and the Merkle frontier of `size` entries."""

    size: int
    hash: str
    frontier: tuple[bytes, ...]

    @property
    def root(self) -> str:
        """The Merkle root (hex)."""
        return merkle.root(self.frontier).hex()


def lock() -> None:
    """Hold the log until the transaction ends. Raises OutsideTransaction outside of one."""
    connection = connections[DEFAULT_DB_ALIAS]
    if not connection.in_atomic_block:
        raise OutsideTransaction("an audit entry belongs in transaction.atomic with its act")
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [ADVISORY_LOCK])
    # SQLite: BEGIN IMMEDIATE has taken the one write lock already (`audit.checks` sees to it).
    if absent := triggers.missing(connection):
        raise LogBroken(f"triggers of the audit log are missing: {', '.join(absent)}")


def read() -> Tip:
    """The end of the log, proved by its signature. Call `lock` first."""
    head = Head.objects.filter(pk=1).first()
    last = Entry.objects.order_by("-seq").values_list("seq", "digest").first()
    if head is None:
        if last is not None:
            raise LogBroken("the log has entries and no head: run `python manage.py verify_audit`")
        return Tip(size=0, hash=triggers.ZEROS, frontier=())
    signed = head_bytes(size=head.size, hash=head.hash, root=head.root, key=head.key)
    if head.key != keys.public_key_hex() or not keys.verify(signed, head.signature):
        raise LogBroken("the log's head is not signed by platform.key: restore the right key")
    tip = Tip(size=head.size, hash=head.hash, frontier=frontier_of(head.frontier))
    if last != (tip.size, tip.hash) or tip.root != head.root:
        raise LogBroken("the log does not end as signed: run `python manage.py verify_audit`")
    return tip


def advance(tip: Tip, digest: str) -> Tip:
    """Sign and store the head after one more entry."""
    leaf = bytes.fromhex(digest)
    frontier = tuple(merkle.grow(tip.frontier, tip.size, leaf))
    moved = Tip(size=tip.size + 1, hash=digest, frontier=frontier)
    key = keys.public_key_hex()
    signed = head_bytes(size=moved.size, hash=moved.hash, root=moved.root, key=key)
    values = {
        "size": moved.size,
        "hash": moved.hash,
        "root": moved.root,
        "frontier": text_of(frontier),
        "key": key,
        "signature": keys.sign(signed),
    }
    if tip.size == 0:
        Head.objects.create(id=1, **values)
    elif Head.objects.filter(pk=1, size=tip.size).update(**values) != 1:
        raise LogBroken("the log's head moved under lock: is another program writing to it?")
    return moved


def frontier_of(text: str) -> tuple[bytes, ...]:
    """The frontier that `text_of` wrote."""
    try:
        return tuple(bytes.fromhex(part) for part in text.split(",") if part)
    except ValueError as error:
        raise LogBroken("the log's frontier is damaged: run `manage.py verify_audit`") from error


def text_of(frontier: tuple[bytes, ...]) -> str:
    """A frontier as text."""
    return ",".join(part.hex() for part in frontier)
