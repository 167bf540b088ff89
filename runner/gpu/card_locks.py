"""The cards that trials run on: one trial a card at a time, also where several runners work beside
each other. Knows no torch and starts nothing.

A trial is measured in wall time, so two of them on one card would both be worth less. Whoever wants
a card holds a lock file of it, by the card's own number. Other users' processes are not seen.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class CardError(RuntimeError):
    """These cards can't be used; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """One card. `device` is its word in CUDA_VISIBLE_DEVICES, `key` the same for all runners."""

    device: str
    key: str
    name: str

    @property
    def lock(self) -> Path:
        """The file that a trial on this card holds."""
        return Path(tempfile.gettempdir()) / f"escapement-{os.getuid()}-card-{self.key}.lock"


def cards_of(found: Sequence[Mapping[str, str]], chosen: str | None) -> tuple[Card, ...]:
    """The cards that torch found (`uuid`, `name`), in the words of `chosen` (what
    CUDA_VISIBLE_DEVICES was then). Raises CardError unless all are of one kind."""
    names = list(dict.fromkeys(one["name"] for one in found))
    if len(names) != 1:
        raise CardError(
            f"{len(found)} cards of several kinds ({', '.join(names)}): metrics of different cards "
            "can't be compared; choose those of one kind with CUDA_VISIBLE_DEVICES"
        )
    words = [word.strip() for word in chosen.split(",")] if chosen else []
    devices = words or [str(number) for number in range(len(found))]
    return tuple(
        Card(
            device=device,
            key=re.sub(r"\W", "-", device if device.startswith("MIG") else one["uuid"]),
            name=one["name"],
        )
        for device, one in zip(devices, found, strict=False)  # torch stops at an unknown word
    )
