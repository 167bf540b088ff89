"""A request for a new dependency of the sandbox image: the record that a reviewer would judge.

For `package==version` and a folder of wheels (or what pip fetches into one): each wheel's hash,
what it says of itself, what it needs that the lock has not, its licence, native code, and what is
known against it. Wheels are opened as archives; nothing of them is installed or run. Nothing here
changes the lock or the image, and nothing decides (docs/adr/0016-dependency-requests.md).
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import sys_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from sandbox import image, vulnerabilities
from sandbox.advisories import normal
from sandbox.report import digest_of
from sandbox.sbom import canonical, licence_of
from sandbox.vulnerabilities import Scan

MAX_WHEEL_BYTES = 512 * 1024 * 1024
MAX_METADATA_BYTES = 1024 * 1024
MAX_WHEELS = 200
MAX_ENTRIES = 50_000
FETCH_SECONDS = 300
NATIVE = (".so", ".pyd", ".dll", ".dylib", ".exe")


class RequestError(ValueError):
    """A request that no record can be made of; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """One wheel, by what is in it."""

    file: str
    sha256: str
    size_bytes: int
    fits_image: bool  # its tags are among those of the Python that the image is built with
    native: tuple[str, ...]  # compiled files: nobody can read them
    needs: tuple[str, ...]  # its requirements, extras left out
    requires_python: str
    licence: str
    summary: str
    starts_code: tuple[str, ...]  # .pth files run at every start of Python


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a person reads before they say yes. `problems` are in words; empty: none was seen."""

    package: str
    version: str
    replaces: str  # the version in the lock; empty: it is new
    wheels: tuple[Wheel, ...]
    missing: tuple[str, ...]  # what it needs and the lock has not, or not in that version
    scan: Mapping[str, Any]
    problems: tuple[str, ...]

    def to_data(self) -> dict[str, Any]:
        """Plain JSON data, `digest` being of all the rest."""
        data = {**asdict(self), "wheels": [asdict(w) for w in self.wheels]}
        return {**data, "digest": digest_of(canonical(data))}


def request(
    pin: str,
    wheels: Path,
    *,
    now: datetime,
    scan: Callable[[Sequence[str]], Scan] = vulnerabilities.current,
) -> Request:
    """The record for `package==version`, whose wheels lie in a folder."""
    package, version = _parts(pin)
    found = tuple(_wheel(path) for path in _candidates(wheels, package, version))
    if not found:
        raise RequestError(
            f"{wheels} has no wheel of {package} {version}: put it there, or let it be fetched."
        )
    lock = {normal(p.partition("==")[0]): p.partition("==")[2] for p in image.pins()}
    missing = sorted({n for w in found if w.fits_image for n in w.needs if not _has(lock, n)})
    known = scan([f"{package}=={version}"])
    return Request(
        package=package,
        version=version,
        replaces=lock.get(package, ""),
        wheels=found,
        missing=tuple(missing),
        scan=known.to_data(now),
        problems=(
            *_wheel_problems(found, missing),
            *_version_problems(known, now, lock.get(package, ""), version),
        ),
    )


def fetch(pin: str, into: Path) -> None:
    """Let pip fetch the wheel that fits, from the index that it is set to; nothing is run of it."""
    package, version = _parts(pin)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(into), f"{package}=={version}"]
    try:
        done = subprocess.run(  # noqa: S603 - fixed words and a pin that was parsed
            command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise RequestError(f"pip did not fetch {pin} within {FETCH_SECONDS} s.") from error
    if done.returncode:
        raise RequestError(f"pip can't fetch {pin} as a wheel: {done.stderr.strip()[-300:]}")


def _parts(pin: str) -> tuple[str, str]:
    try:
        wanted = Requirement(pin)
        (one,) = wanted.specifier
        if one.operator != "==" or wanted.extras or wanted.marker or wanted.url:
            raise ValueError("not name==version alone")
        return normal(wanted.name), str(Version(one.version))
    except (InvalidRequirement, InvalidVersion, ValueError) as error:
        raise RequestError(f"{pin!r} is no request: say PACKAGE==VERSION ({error}).") from None


def _candidates(folder: Path, package: str, version: str) -> list[Path]:
    if not folder.is_dir():
        raise RequestError(f"{folder} is no folder of wheels.")
    found = []
    for path in sorted(folder.glob("*.whl")):
        try:
            name, of, _, _ = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        if name == package and of == Version(version):
            found.append(path)
    if len(found) > MAX_WHEELS:
        raise RequestError(f"{folder} has over {MAX_WHEELS} wheels of {package} {version}.")
    return found


def _wheel(path: Path) -> Wheel:
    if path.is_symlink() or path.stat().st_size > MAX_WHEEL_BYTES:
        raise RequestError(f"{path.name} is a link, or over {MAX_WHEEL_BYTES} bytes.")
    name, version, _, tags = parse_wheel_filename(path.name)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            metadata = _metadata(archive, entries)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise RequestError(
            f"{path.name} is cut off or damaged ({error}): fetch it again."
        ) from None
    said = (normal(str(metadata["Name"])), str(metadata["Version"]))
    if said != (name, str(version)):
        raise RequestError(f"{path.name} says of itself that it is {' '.join(said)}.")
    names = [e.filename for e in entries]
    return Wheel(
        file=path.name,
        sha256=digest,
        size_bytes=path.stat().st_size,
        fits_image=bool(tags & set(sys_tags())),
        native=tuple(n for n in names if n.endswith(NATIVE) or ".so." in n),
        needs=tuple(sorted(_needs(metadata))),
        requires_python=str(metadata.get("Requires-Python") or ""),
        licence=licence_of(metadata),
        summary=str(metadata.get("Summary") or "")[:300],
        starts_code=tuple(n for n in names if n.endswith(".pth")),
    )


def _metadata(archive: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo]) -> Message:
    if len(entries) > MAX_ENTRIES:
        raise RequestError(f"{archive.filename} has over {MAX_ENTRIES} files.")
    found = [
        e
        for e in entries
        if e.filename.endswith(".dist-info/METADATA") and e.filename.count("/") == 1
    ]
    if len(found) != 1:
        raise RequestError(f"{archive.filename} has {len(found)} METADATA files, not one.")
    with archive.open(found[0]) as file:
        data = file.read(MAX_METADATA_BYTES + 1)
    if len(data) > MAX_METADATA_BYTES:
        raise RequestError(f"{archive.filename} has over {MAX_METADATA_BYTES} bytes of METADATA.")
    return BytesParser().parsebytes(data, headersonly=True)


def _needs(metadata: Message) -> set[str]:
    found = set()
    for text in metadata.get_all("Requires-Dist") or []:
        try:
            one = Requirement(str(text))
        except InvalidRequirement as error:
            raise RequestError(f"it needs {text!r}, which nobody can read ({error}).") from None
        if one.marker is None or one.marker.evaluate({"extra": ""}):
            found.add(f"{normal(one.name)}{one.specifier}")
    return found


def _has(lock: Mapping[str, str], need: str) -> bool:
    wanted = Requirement(need)
    pinned = lock.get(wanted.name)
    return pinned is not None and wanted.specifier.contains(pinned, prereleases=True)


def _wheel_problems(wheels: Sequence[Wheel], missing: Sequence[str]) -> Iterator[str]:
    if not any(w.fits_image for w in wheels):
        yield "none of its wheels fits the image's Python"
    if len({w.licence for w in wheels}) > 1 or not wheels[0].licence:
        yield "its licence is not stated, or its wheels state different ones"
    if missing:
        yield f"it needs what the lock has not, each a request of its own: {', '.join(missing)}"
    if any(w.starts_code for w in wheels):
        yield "a .pth file of it runs at every start of Python"


def _version_problems(known: Scan, now: datetime, pinned: str, version: str) -> Iterator[str]:
    for name, advisories in known.vulnerable.items():
        yield f"{name} has {', '.join(one['id'] for one in advisories)}"
    if not known.complete:
        yield "NOT SCANNED for known vulnerabilities"
    elif known.stale(now):
        yield f"the advisories are {known.age_days(now)} days old"
    if pinned and Version(version) < Version(pinned):
        yield f"it goes back behind the lock's {pinned}"
