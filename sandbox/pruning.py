"""Old images of the sandbox: which may go. Careful: what is doubtful stays.

Only images in our own repositories, and nameless ones with our label. One stays that is wanted now
or by the caller, that any container was made of, or that got its name a short while ago; and an
engine never removes by force. What went can be made again: the same inputs give the same image.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sandbox import image
from sandbox.backends import images
from sandbox.backends.images import Kept

REPOSITORIES = (image.REPOSITORY, "escapement-base")
DAYS = 7
MAX_REMOVED = 50


@dataclass(frozen=True, kw_only=True)
class Fate:
    """What becomes of one image, and why."""

    image: Kept
    goes: bool
    why: str


def decide(
    found: Collection[Kept],
    *,
    wanted: Collection[str],
    used: Collection[str],
    now: datetime,
    days: float = DAYS,
) -> list[Fate]:
    """Which go: `wanted` are ids and tags, `used` the ids that containers were made of."""
    fates, going = [], 0
    for one in sorted(found, key=lambda kept: (kept.named, kept.image_id)):
        why = ""
        if {one.image_id, *one.tags} & set(wanted):
            why = "it is wanted"
        elif one.image_id in used:
            why = "a container was made of it"
        elif any(tag.rpartition(":")[0] not in REPOSITORIES for tag in one.tags):
            why = "it has a name that is not ours"
        elif one.tags and now - one.named < timedelta(days=days):
            why = f"it got its name within {days:g} days"
        elif going >= MAX_REMOVED:
            why = f"{MAX_REMOVED} go at once, and no more"
        going += not why
        fates.append(Fate(image=one, goes=not why, why=why or "nothing wants it"))
    return fates


def prune(
    client: Any,
    *,
    wanted: Collection[str],
    now: datetime,
    days: float = DAYS,
    really: bool = True,
    tell: Callable[[str], None],
) -> list[Fate]:
    """Remove what may go, or only say what would."""
    fates = decide(
        images.ours(client, REPOSITORIES, image.LABEL),
        wanted={image.tag(), *wanted},
        used=images.in_use(client),
        now=now,
        days=days,
    )
    for fate in fates:
        name = ", ".join(fate.image.tags) or fate.image.image_id[:19]
        if not fate.goes:
            tell(f"stays: {name} ({fate.why})")
            continue
        stayed = ""
        for reference in (fate.image.tags or (fate.image.image_id,)) if really else ():
            stayed = stayed or images.remove(client, reference)
        if stayed:
            tell(f"stays: {name} ({stayed})")
        else:
            tell(f"{'removed' if really else 'would go'}: {name}")
    return fates
