"""The lock of the sandbox image: its packages with the hashes of their wheels, and what of them a
mechanism may import beyond the table of `sandbox.checks`.

The seed's lock is `PACKAGES` at the versions of constraints.txt with the hashes of `hashes.json`.
A site that adopted a request for a package has a lock of its own in a file, which then stands in
the seed's place; only the platform writes it, and a runner takes it over. Nothing here installs
anything and nothing decides (docs/adr/0019-governed-dependencies.md).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from sandbox.advisories import normal
from sandbox.errors import InfrastructureError
from sandbox.files import put
from sandbox.report import digest_of

FORMAT = "escapement lock v1"
FILE = "lock.json"
ROOT = Path(__file__).resolve().parents[1]
MAX_LOCK_BYTES = 4 * 1024 * 1024
MAX_PACKAGES = 200
MAX_HASHES = 400
MAX_MODULES = 400
MAX_NAMES = 5000
MAX_LICENCE_CHARS = 200
_tried: ContextVar[Lock | None] = ContextVar("the lock that is tried", default=None)
_HASH = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_MODULE = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*){0,7}", re.ASCII)
_PUBLIC = re.compile(r"[A-Za-z]\w{0,99}", re.ASCII)


class LockError(InfrastructureError):
    """A lock that is none, or that two things can't be joined to; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Pin:
    """One package. `hashes` are SHA-256 in hex, any of which its wheel may have."""

    name: str
    version: str
    hashes: tuple[str, ...]
    licence: str = ""

    @property
    def line(self) -> str:
        """`name==version`."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True, kw_only=True)
class Lock:
    """Packages by name, and opened modules with their names, both in order."""

    pins: tuple[Pin, ...]
    modules: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Its identity."""
        return digest_of(self.to_bytes())

    def lines(self) -> list[str]:
        """`name==version` of each package."""
        return [pin.line for pin in self.pins]

    def packages(self) -> bytes:
        """What of it decides what is in the image: packages and hashes."""
        return "".join(_requirement(pin) for pin in self.pins).encode()

    def requirements(self) -> str:
        """For `pip install --require-hashes`."""
        return self.packages().decode()

    def shown(self) -> str:
        """For people, a line each, so that two of them can be compared."""
        opened = [f"import {name}: {', '.join(names)}\n" for name, names in self.modules.items()]
        return self.requirements() + "".join(opened)

    def to_bytes(self) -> bytes:
        """Canonical JSON, as it is stored."""
        data = {
            "format": FORMAT,
            "packages": [
                {
                    "name": pin.name,
                    "version": pin.version,
                    "hashes": list(pin.hashes),
                    "licence": pin.licence,
                }
                for pin in self.pins
            ],
            "modules": {name: list(names) for name, names in self.modules.items()},
        }
        return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()

    def version_of(self, package: str) -> str:
        """The pinned version; empty: it is not in it."""
        return next((pin.version for pin in self.pins if pin.name == normal(package)), "")

    def roots(self) -> frozenset[str]:
        """The top-level names of the opened modules."""
        return frozenset(name.partition(".")[0] for name in self.modules)

    def extended(self, pins: Sequence[Pin], modules: Mapping[str, Sequence[str]]) -> Lock:
        """With these packages added or in the place of other versions, and these names opened."""
        joined = {pin.name: pin for pin in (*self.pins, *pins)}
        opened = {name: set(names) for name, names in self.modules.items()}
        for name, names in modules.items():
            opened.setdefault(name, set()).update(names)
        made = replace(
            self,
            pins=tuple(joined[name] for name in sorted(joined)),
            modules={name: tuple(sorted(opened[name])) for name in sorted(opened)},
        )
        return parse(made.to_bytes())


def _requirement(pin: Pin) -> str:
    hashes = "".join(f" \\\n    --hash=sha256:{value}" for value in pin.hashes)
    return f"{pin.line}{hashes}\n"


# --- reading ---


def parse(data: bytes) -> Lock:
    """A lock from bytes that are not trusted. Raises LockError."""
    if len(data) > MAX_LOCK_BYTES:
        raise LockError(f"A lock has at most {MAX_LOCK_BYTES} bytes.")
    try:
        found = json.loads(data)
        if type(found) is not dict or set(found) != {"format", "packages", "modules"}:
            raise ValueError("it needs `format`, `packages` and `modules`")
        if found["format"] != FORMAT:
            raise ValueError(f"its format is not {FORMAT!r}")
        pins = [_pin(one) for one in _some(found["packages"], list, MAX_PACKAGES)]
        modules = _some(found["modules"], dict, MAX_MODULES)
        opened = {_like(_MODULE, name): _names(names) for name, names in modules.items()}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise LockError(
            f"It is no lock of a sandbox image ({error}): take it from the platform again."
        ) from None
    if len({pin.name for pin in pins}) != len(pins):
        raise LockError("A lock names each package once: take it from the platform again.")
    pins.sort(key=lambda pin: pin.name)
    return Lock(pins=tuple(pins), modules={name: opened[name] for name in sorted(opened)})


def _pin(data: Any) -> Pin:
    if type(data) is not dict or set(data) != {"name", "version", "hashes", "licence"}:
        raise ValueError("a package is name, version, hashes and licence")
    licence = data["licence"]
    if type(licence) is not str or len(licence) > MAX_LICENCE_CHARS or not licence.isprintable():
        raise ValueError("a licence is short text")
    try:
        version = str(Version(data["version"]))
    except InvalidVersion as error:
        raise ValueError(str(error)) from None
    if version != data["version"]:
        raise ValueError(f"{data['version']!r} is written {version!r}")
    hashes = [_like(_HASH, one) for one in _some(data["hashes"], list, MAX_HASHES)]
    if not hashes:
        raise ValueError(f"{data['name']!r} has no hash")
    return Pin(
        name=_like(_NAME, data["name"]),
        version=version,
        hashes=tuple(sorted(set(hashes))),
        licence=licence,
    )


def _names(data: Any) -> tuple[str, ...]:
    return tuple(sorted({_like(_PUBLIC, one) for one in _some(data, list, MAX_NAMES)}))


def _like(pattern: re.Pattern[str], text: Any) -> str:
    if type(text) is not str or len(text) > 200 or not pattern.fullmatch(text):
        raise ValueError(f"{str(text)[:80]!r} is not allowed there")
    return text


def _some(data: Any, kind: type, limit: int) -> Any:
    if not isinstance(data, list | dict) or type(data) is not kind or len(data) > limit:
        raise ValueError(f"a {kind.__name__} of at most {limit} was wanted")
    return data


# --- the one in force ---


def folder() -> Path:
    """Where a site's lock and its wheels lie: below the installation's var folder."""
    return Path(os.environ.get("ESCAPEMENT_VAR") or ROOT / "var") / "image"


def current() -> Lock:
    """The site's lock, or the seed's where the site has none. Raises InfrastructureError."""
    return _tried.get() or site() or seed()


@contextmanager
def using(lock: Lock) -> Iterator[Lock]:
    """Another lock in this thread, for as long as the block lasts: what is built with it and
    started of it is tried before anybody adopts it."""
    token = _tried.set(lock)
    try:
        yield lock
    finally:
        _tried.reset(token)


def site() -> Lock | None:
    """The lock that this site adopted or took over; None: it has none. LockError: it is broken."""
    path = folder() / FILE
    try:
        with path.open("rb") as file:
            data = file.read(MAX_LOCK_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LockError(f"{path} can't be read ({error.strerror or error}).") from error
    return _parsed(data)


@lru_cache(maxsize=4)
def _parsed(data: bytes) -> Lock:
    return parse(data)


def seed() -> Lock:
    """The lock that a new installation has."""
    from sandbox import image  # noqa: PLC0415 - it reads this module's lock

    return image.seed_lock()


def keep(lock: Lock) -> None:
    """Put a site's lock in force on this machine, whole or not at all."""
    where = folder()
    try:
        where.mkdir(mode=0o755, parents=True, exist_ok=True)
        put(where / FILE, lock.to_bytes(), mode=0o644)
    except OSError as error:
        raise LockError(f"{where / FILE} can't be written ({error.strerror or error}).") from error


def forget() -> None:
    """Go back to the seed's lock on this machine."""
    (folder() / FILE).unlink(missing_ok=True)
