"""What a reviewer has opened of a proposal: kept in the session, hashed into the decision.

An item is one changed file or one finding, with the digest of what was shown. A new screening or
another commit gives other digests, so that nothing counts that was opened before it changed.
This records; whether an approval may follow is `lifecycle`'s decision.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib.sessions.backends.base import SessionBase

KEY = "opened"
MAX_PROPOSALS = 40


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing to open. `key` names it, `digest` is of what is shown, `title` is for people."""

    key: str
    digest: str
    title: str
    opened: bool = False

    @property
    def anchor(self) -> str:
        """The id of its element; a new content has a new id."""
        return f"{self.key.replace(':', '-').replace('/', '-').replace('.', '-')}-{self.digest[:8]}"


def digest_of(value: Any) -> str:
    """SHA-256 of bytes, or of a value's canonical JSON."""
    if not isinstance(value, bytes):
        value = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(value).hexdigest()


def opened(session: SessionBase, proposal_id: int) -> dict[str, str]:
    """Key -> digest of everything that was opened."""
    return dict(session.get(KEY, {}).get(str(proposal_id), {}))


def record(session: SessionBase, proposal_id: int, item: Item) -> None:
    """Remember that `item` was opened; only the newest proposals are kept."""
    everything = dict(session.get(KEY, {}))
    mine = everything.pop(str(proposal_id), {})
    everything[str(proposal_id)] = {**mine, item.key: item.digest}
    session[KEY] = dict(list(everything.items())[-MAX_PROPOSALS:])


def missing(items: Iterable[Item], seen: Mapping[str, str]) -> list[Item]:
    """What was not opened, or not as it is now."""
    return [item for item in items if seen.get(item.key) != item.digest]
