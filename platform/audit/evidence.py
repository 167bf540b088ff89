"""What other apps give to verification and export, without `audit` knowing them.

A provider is registered when its app is ready. It reads; it changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol


class Unavailable(OSError):
    """A provider can't read what it should give; the message says what."""


class Provider(Protocol):
    """One app's rows and files. `using` is the database alias to read from."""

    name: str
    # Of these kinds (`proposal`, `activation` ...) `rows` gives every row that there is.
    kinds: frozenset[str]

    def rows(self, using: str) -> Iterable[Mapping[str, Any]]:
        """Rows as the log should tell them: `of`, and values named as the verifier's facts."""

    def population(self, using: str) -> Iterable[Mapping[str, Any]]:
        """All proposals for population.csv: `verifier.POPULATION` and further columns."""

    def files(self, using: str) -> Iterable[tuple[str, bytes]]:
        """Further files of an evidence bundle: path, content."""

    def exceptions(self, using: str) -> Iterable[tuple[str, str]]:
        """What an auditor should look at first: (subject, why)."""

    def anchors(self) -> Iterable[str]:
        """Checkpoints that were kept outside of the database."""


_providers: dict[str, Provider] = {}


def register(provider: Provider) -> None:
    """Add a provider; one of the same name is replaced."""
    _providers[provider.name] = provider


def providers() -> list[Provider]:
    """All providers, by name."""
    return [_providers[name] for name in sorted(_providers)]
