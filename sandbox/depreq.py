"""A request for a new dependency of the sandbox image: the record that a reviewer judges.

For `package==version`, the wheels that come with it, and the modules that mechanisms may import of
it: each wheel's hash, what it says of itself, what it needs, its licence, native code, what is
known against it, and the lock as it would be. Wheels are opened as archives; nothing of them is
installed or run. Nothing here changes the lock or the image, and nothing decides
(docs/adr/0019-governed-dependencies.md).
"""

from __future__ import annotations

import difflib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from sandbox import lock as locks
from sandbox import opened, vulnerabilities, wheels
from sandbox.advisories import normal
from sandbox.lock import MAX_LICENCE_CHARS, Lock, LockError, Pin
from sandbox.report import digest_of
from sandbox.sbom import canonical
from sandbox.vulnerabilities import Scan
from sandbox.wheel_facts import RequestError, Wheel, candidates, look
from sandbox.wheels import Found

LIKE = 0.8
Scanner = Callable[[Sequence[str]], Scan]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a person reads before they say yes. `problems` are in words; `blockers` are those
    among them with which nothing can be built or nobody should: no approval helps."""

    package: str
    version: str
    replaces: str  # the version in the lock; empty: it is new
    brings: tuple[str, ...]  # `name==version` of what comes along
    wheels: tuple[Wheel, ...]
    missing: tuple[str, ...]  # what it needs and neither lock nor wheels have in that version
    yanked: Mapping[str, str]
    modules: Mapping[str, tuple[str, ...]]  # what mechanisms could import, name by name
    scan: Mapping[str, Any]
    lock_before: str  # digests of the lock
    lock_after: str
    diff: str  # of the two, a line each
    problems: tuple[str, ...]
    blockers: tuple[str, ...]
    lock: Lock = field(repr=False)  # as it would be

    def to_data(self) -> dict[str, Any]:
        """Plain JSON data, `digest` being of all the rest."""
        data = {k: v for k, v in asdict(self).items() if k != "lock"}
        data["modules"] = {name: list(names) for name, names in self.modules.items()}
        return {**data, "digest": digest_of(canonical(data))}


def request(
    pin: str,
    folder: Path,
    *,
    now: datetime,
    scan: Scanner = vulnerabilities.current,
    lock: Lock | None = None,
    modules: Mapping[str, Sequence[str]] | None = None,
    found: Sequence[Found] = (),
) -> Request:
    """The record for `package==version`, whose wheels lie in a folder.

    `found` is what pip chose, dependencies included; without it the package alone comes in.
    """
    package, version = parts(pin)
    lock = locks.current() if lock is None else lock
    found = found or [Found(name=package, version=version, sha256="")]
    incoming = [f for f in found if f.name == package or lock.version_of(f.name) != f.version]
    seen = tuple(look(path) for f in incoming for path in candidates(folder, f.name, f.version))
    if not any(w.package == package for w in seen):
        raise RequestError(
            f"{folder} has no wheel of {package} {version}: put it there, or let it be fetched."
        )
    paths = [folder / w.file for w in seen]
    try:
        names = opened.names(modules or {}, paths)
        after = lock.extended([_pin(f, seen, lock) for f in incoming], names)
    except (opened.OpenedError, LockError) as error:
        raise RequestError(str(error), "modules") from None
    pinned = {p.name: p.version for p in after.pins}
    missing = sorted({n for w in seen if w.fits_image for n in w.needs if not _has(pinned, n)})
    known = scan([f.line for f in incoming])
    yanked = {f.name: f.yanked for f in incoming if f.yanked}
    blockers = [*_blockers(incoming, seen, missing, yanked), *_broken(lock, after, seen)]
    return Request(
        package=package,
        version=version,
        replaces=lock.version_of(package),
        brings=tuple(f.line for f in incoming if f.name != package),
        wheels=seen,
        missing=tuple(missing),
        yanked=yanked,
        modules=names,
        scan=known.to_data(now),
        lock_before=lock.digest,
        lock_after=after.digest,
        diff=difference(lock, after),
        problems=(
            *blockers,
            *_wheel_problems(seen),
            *_version_problems(known, now, lock, incoming),
        ),
        blockers=tuple(blockers),
        lock=after,
    )


def examine(
    pin: str,
    *,
    now: datetime,
    lock: Lock | None = None,
    modules: Mapping[str, Sequence[str]] | None = None,
    keep: bool = False,
    scan: Scanner = vulnerabilities.current,
) -> Request:
    """The same with what pip fetches; `keep`: its wheels are kept for building the image.

    Raises RequestError, and WheelError where pip has no wheels.
    """
    package, version = parts(pin)
    lock = locks.current() if lock is None else lock
    with tempfile.TemporaryDirectory(prefix="escapement-request-") as place:
        into = Path(place, "wheels")
        into.mkdir()
        found = wheels.resolve(package, version, lock, Path(place))
        coming = [f for f in found if f.name == package or lock.version_of(f.name) != f.version]
        wheels.download(coming, into, Path(place))
        made = request(pin, into, now=now, scan=scan, lock=lock, modules=modules, found=found)
        for wheel in made.wheels if keep else ():
            wheels.store(into / wheel.file)
    return made


def difference(before: Lock, after: Lock) -> str:
    """Two locks compared, a line each, without context."""
    lines = difflib.unified_diff(
        before.shown().splitlines(), after.shown().splitlines(), "now", "then", lineterm="", n=0
    )
    return "\n".join(line for line in lines if not line.startswith("@@"))


def parts(pin: str) -> tuple[str, str]:
    """`package==version` as its two halves, both normalised. Raises RequestError."""
    try:
        wanted = Requirement(pin)
        (one,) = wanted.specifier
        if one.operator != "==" or wanted.extras or wanted.marker or wanted.url:
            raise ValueError("not name==version alone")
        return normal(wanted.name), str(Version(one.version))
    except (InvalidRequirement, InvalidVersion, ValueError) as error:
        raise RequestError(
            f"{pin[:200]!r} is no request: say PACKAGE==VERSION ({error}).", "no_request"
        ) from None


def _pin(found: Found, seen: Sequence[Wheel], lock: Lock) -> Pin:
    mine = [w for w in seen if w.package == found.name]
    hashes = {w.sha256 for w in mine}
    if lock.version_of(found.name) == found.version:  # only modules of it are opened
        known = next(p for p in lock.pins if p.name == found.name)
        if not hashes & set(known.hashes):
            raise LockError(
                f"The index serves other bytes for {found.line} than those of the lock: nothing "
                "was taken. Find out who changed them."
            )
        return known
    if not mine:
        raise LockError(f"{found.line} comes with it, and there is no wheel of it.")
    licence = "".join(c for c in mine[0].licence if c.isprintable())[:MAX_LICENCE_CHARS]
    return Pin(
        name=found.name, version=found.version, hashes=tuple(sorted(hashes)), licence=licence
    )


def _has(pinned: Mapping[str, str], need: str) -> bool:
    wanted = Requirement(need)
    version = pinned.get(wanted.name)
    return version is not None and wanted.specifier.contains(version, prereleases=True)


# --- what speaks against it ---


def _blockers(
    incoming: Sequence[Found],
    seen: Sequence[Wheel],
    missing: Sequence[str],
    yanked: Mapping[str, str],
) -> Iterator[str]:
    for found in incoming:
        if not any(w.fits_image for w in seen if w.package == found.name):
            yield f"none of the wheels of {found.line} fits the image's Python"
    if missing:
        yield f"it needs what the lock has not, or not in that version: {', '.join(missing)}"
    for name, why in yanked.items():
        yield f"{name}: {why}"
    for wheel in seen:
        if taken := sorted(set(wheel.top) & opened.OURS - {"tests"}):
            yield f"{wheel.package} would write over our own {', '.join(taken)}"
        if hidden := sorted(set(wheel.top) & sys.stdlib_module_names):
            yield f"{wheel.package} brings {', '.join(hidden)}, a name of the standard library"


def _broken(before: Lock, after: Lock, seen: Sequence[Wheel]) -> Iterator[str]:
    """Two packages of one import name: the later would write over the earlier."""
    owner: dict[str, str] = {}
    for wheel in seen:
        for name in wheel.top:
            other = owner.setdefault(name, wheel.package)
            known = before.version_of(name) and normal(name) != wheel.package
            if other != wheel.package or known:
                taken = other if other != wheel.package else normal(name)
                yield f"{wheel.package} brings {name}, which is {taken}'s"


def _wheel_problems(seen: Sequence[Wheel]) -> Iterator[str]:
    for package in sorted({w.package for w in seen}):
        mine = [w for w in seen if w.package == package]
        if len({w.licence for w in mine}) > 1 or not mine[0].licence:
            yield f"the licence of {package} is not stated, or its wheels state different ones"
    for wheel in seen:
        if pth := [n for n in wheel.left_out if n.endswith(".pth")]:
            yield f"{wheel.package}: {', '.join(pth)} would run at every start: it is left out"


def _version_problems(
    known: Scan, now: datetime, lock: Lock, incoming: Sequence[Found]
) -> Iterator[str]:
    for name, advisories in known.vulnerable.items():
        yield f"{name} has {', '.join(one['id'] for one in advisories)}"
    if not known.complete:
        yield "NOT SCANNED for known vulnerabilities"
    elif known.stale(now):
        yield f"the advisories are {known.age_days(now)} days old"
    for one in incoming:
        pinned = lock.version_of(one.name)
        if pinned and Version(one.version) < Version(pinned):
            yield f"{one.name} goes back behind the lock's {pinned}"
        if pinned and Version(one.version) > Version(pinned):
            yield f"{one.name} {pinned} of the lock becomes {one.version}"
        if not pinned and (other := _like(one.name, lock)):
            yield f"the name {one.name} is close to {other} of the lock: is it the right one?"


def _like(name: str, lock: Lock) -> str:
    """A name of the lock that a slip of the pen would make of this one; empty: none."""
    flat = name.replace("-", "")
    for pin in lock.pins:
        other = pin.name.replace("-", "")
        if difflib.SequenceMatcher(None, flat, other).ratio() >= LIKE:
            return pin.name
    return ""
