"""Signed notes about the log (C2SP signed note, tlog-checkpoint), for keeping elsewhere.

A chain can't show that its tail was cut; a checkpoint that somebody else remembers can. Notes are
given to the mechanisms repository and to runners (`anchor`), and compared when they come back
(`contradiction`). Every note ever given out is a row here.
"""

from __future__ import annotations

import base64
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from audit import canonical, head, keys, merkle
from audit.head import LogBroken, Tip
from audit.models import Checkpoint, Entry, Head
from audit.verifier import CHECKPOINT_EVERY, CHECKPOINT_VERBS, NOTE_ORIGIN, key_id, parse_note

MAX_NOTE_CHARS = 2000


def after(tip: Tip, *, verb: str, at: datetime) -> Checkpoint | None:
    """The checkpoint that is due after an entry, if one is. The caller holds the lock."""
    if tip.size % CHECKPOINT_EVERY == 0 or verb in CHECKPOINT_VERBS:
        return _issue(tip, at=at)
    return None


def make() -> Checkpoint | None:
    """A checkpoint of the log as it is now; None while the log is empty."""
    with transaction.atomic():
        head.lock()
        tip = head.read()
        if tip.size == 0:
            return None
        return Checkpoint.objects.filter(pk=tip.size).first() or _issue(tip, at=timezone.now())


def heartbeat(*, every_seconds: int = 60) -> Checkpoint | None:
    """A checkpoint if entries are `every_seconds` old and not covered by one; else None."""
    newest = Checkpoint.objects.first()
    covered = newest.size if newest else 0
    first = Entry.objects.filter(seq=covered + 1).values_list("at", flat=True).first()
    if first is None or first > timezone.now() - timedelta(seconds=every_seconds):
        return None
    return make()


def anchor() -> str:
    """The newest note, "" before the first one: give it to whoever may remember it."""
    newest = Checkpoint.objects.first()
    return newest.note if newest else ""


def contradiction(text: str) -> str:
    """Why a note that came back shows that this log was cut or rewritten; "" if it agrees.

    A note that we never signed contradicts nothing but is reported all the same.
    """
    if len(text) > MAX_NOTE_CHARS:
        return "the note is too long to be one of ours"
    try:
        note = parse_note(text)
    except ValueError as error:
        return f"this is no note of ours: {error}"
    if note.key != keys.public_key_hex() or not keys.verify(note.signed, note.signature):
        return "the note is not signed by this platform's key"
    size = Head.objects.filter(pk=1).values_list("size", flat=True).first() or 0
    if note.size > size:
        return f"a note covers {note.size} entries, the log has {size}: its tail was cut"
    known = Checkpoint.objects.filter(pk=note.size).values_list("root", flat=True).first()
    if known is None:
        return f"the checkpoint at {note.size} was signed and is no longer in the log"
    if known != note.root:
        return f"the log was rewritten: at {note.size} it had another root"
    return ""


def _issue(tip: Tip, *, at: datetime) -> Checkpoint:
    """Sign and store a checkpoint, after proving the root from the entries since the last one."""
    earlier = Checkpoint.objects.first()
    size, frontier = 0, tuple[bytes, ...]()
    if earlier is not None:
        size, frontier = earlier.size, head.frontier_of(earlier.frontier)
        note = parse_note(earlier.note)
        genuine = keys.verify(note.signed, note.signature)
        if not genuine or (note.size, note.root) != (size, merkle.root(frontier).hex()):
            raise LogBroken("the last checkpoint is damaged: run `manage.py verify_audit`")
    bodies = Entry.objects.filter(seq__gt=size, seq__lte=tip.size).order_by("seq")
    for body in bodies.values_list("body", flat=True).iterator():
        frontier = tuple(merkle.grow(frontier, size, merkle.leaf_hash(body.encode())))
        size += 1
    if (size, merkle.root(frontier).hex()) != (tip.size, tip.root):
        raise LogBroken("entries since the last checkpoint were changed: run verify_audit")
    return Checkpoint.objects.create(
        size=tip.size,
        root=tip.root,
        frontier=head.text_of(frontier),
        note=_note(tip, at=at),
        at=at,
    )


def _note(tip: Tip, *, at: datetime) -> str:
    key = keys.public_key_hex()
    root = base64.b64encode(bytes.fromhex(tip.root)).decode()
    text = (
        f"{NOTE_ORIGIN}\n{tip.size}\n{root}\nhead {tip.hash}\nat {canonical.utc(at)}\nkey {key}\n"
    )
    signature = bytes.fromhex(keys.sign(text.encode()))
    line = base64.b64encode(key_id(key) + signature).decode()
    return f"{text}\n\u2014 {NOTE_ORIGIN} {line}\n"
