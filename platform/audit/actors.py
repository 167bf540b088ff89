"""Who did it: the actor that every verb names and every audit entry carries.

A value with ids and names as text, so that the log stays readable when accounts are gone. It
authenticates nobody: doors do, before they make one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ActorKind(StrEnum):
    PERSON = "person"  # an authenticated account
    RUNNER = "runner"  # a token; never a person
    POLICY = "policy"  # guarded autonomous mode; `id` is the policy's digest
    SYSTEM = "system"  # the platform's own work: screening, expiry, recovery


@dataclass(frozen=True, kw_only=True)
class Actor:
    """One actor; `id` is unique within its kind, `name` is for people to read."""

    kind: ActorKind
    id: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


SYSTEM = Actor(kind=ActorKind.SYSTEM, id="platform", name="platform")
