"""What an app above gives to the lifecycle, which does not know it: the lock in force, rows of the
inbox, and whether the sandbox is the one that was adopted.

Registered once, when that app is ready; without it nothing is asked and nothing is added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from django.contrib.auth.models import User

Rows = list[dict[str, Any]]


class Packages(Protocol):
    """The app of requests for packages."""

    def lock_in_force(self) -> str:
        """The digest of the adopted lock; empty: none was ever adopted."""

    def require(self) -> None:
        """Raise InfrastructureError while this machine has another lock."""

    def rows(self, person: User) -> tuple[Rows, Rows]:
        """Open requests for the inbox: (waiting for this person, waiting for others)."""


@dataclass
class _Registered:
    packages: Packages | None = None


_registered = _Registered()


def register(packages: Packages) -> None:
    """Say who knows about packages."""
    _registered.packages = packages


def lock_in_force() -> str:
    """The digest of the adopted lock; empty: none was ever adopted."""
    return _registered.packages.lock_in_force() if _registered.packages else ""


def require_lock() -> None:
    """Raise InfrastructureError while this machine has another lock than the one in force."""
    if _registered.packages:
        _registered.packages.require()


def rows_of(person: User) -> tuple[Rows, Rows]:
    """Requests for packages in the inbox."""
    return _registered.packages.rows(person) if _registered.packages else ([], [])
