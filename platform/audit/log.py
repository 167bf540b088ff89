"""The writer of the audit log: the only place that creates entries.

`append` runs in the transaction of the act it records: both happen or neither does.
docs/audit-log.md says which verbs there are and what their data holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from django.utils import timezone

from audit import canonical, checkpoints, head
from audit.actors import Actor
from audit.head import AuditError, LogBroken, OutsideTransaction
from audit.merkle import leaf_hash
from audit.models import Entry

__all__ = ["AuditError", "EntryRefused", "LogBroken", "OutsideTransaction", "append"]

MAX_DATA_BYTES = 64 * 1024
MAX_REASON_CHARS = 8000
_LIMITS = {"actor id": 100, "actor name": 200, "subject": 200, "target": 100}
_VERB = re.compile(r"[a-z]+(\.[a-z_]+){1,3}")


class EntryRefused(AuditError):
    """The entry itself is wrong: too large, no verb, no data."""


def append(
    *,
    actor: Actor,
    verb: str,
    subject: str,
    reason: str = "",
    data: Mapping[str, Any] | None = None,
    target: str = "",
) -> Entry:
    """Add one entry to the log, in the transaction that is open. Raises AuditError.

    Every 100 entries, and after the verbs that matter most, a signed checkpoint is made too.
    """
    head.lock()
    tip = head.read()
    at = timezone.now()
    body: dict[str, Any] = {
        "v": 1,
        "seq": tip.size + 1,
        "prev": tip.hash,
        "at": canonical.utc(at),
        "actor": {
            "kind": str(actor.kind),
            "id": canonical.text(actor.id),
            "name": canonical.text(actor.name),
        },
        "verb": verb,
        "subject": canonical.text(subject),
        "target": canonical.text(target),
        "reason": canonical.text(reason),
        "data": dict(data or {}),
    }
    encoded = _encode(body)
    entry = Entry(
        seq=body["seq"],
        prev=tip.hash,
        digest=leaf_hash(encoded).hex(),
        body=encoded.decode(),
        at=at,
        actor_kind=body["actor"]["kind"],
        actor_id=body["actor"]["id"],
        actor_name=body["actor"]["name"],
        verb=verb,
        subject=body["subject"],
        target=body["target"],
        reason=body["reason"],
    )
    entry.save(force_insert=True)
    moved = head.advance(tip, entry.digest)
    checkpoints.after(moved, verb=verb, at=at)
    return entry


def _encode(body: Mapping[str, Any]) -> bytes:
    """The entry's canonical bytes, inside the limits."""
    actor = body["actor"]
    if not _VERB.fullmatch(body["verb"]) or len(body["verb"]) > 60:
        raise EntryRefused(f"{body['verb']!r} is no verb: write `area.what_happened`")
    if not body["subject"] or not actor["id"]:
        raise EntryRefused("an entry names its actor and its subject")
    values = (actor["id"], actor["name"], body["subject"], body["target"])
    for (name, limit), value in zip(_LIMITS.items(), values, strict=True):
        if len(value) > limit:
            raise EntryRefused(f"{name} has {len(value)} characters: at most {limit}")
    if len(body["reason"]) > MAX_REASON_CHARS:
        raise EntryRefused(f"the reason is too long: at most {MAX_REASON_CHARS} characters")
    try:
        size = len(canonical.encode(body["data"]))
        encoded = canonical.encode(body)
    except canonical.NotCanonical as error:
        raise EntryRefused(str(error)) from error
    if size > MAX_DATA_BYTES:
        raise EntryRefused(
            f"data has {size} bytes, at most {MAX_DATA_BYTES}: name large things by their digest"
        )
    return encoded
