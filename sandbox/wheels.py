"""Wheels for the sandbox image: which ones a package needs, fetched by pip, kept by their hash.

pip asks the index that it is set to (or a folder: PIP_NO_INDEX, PIP_FIND_LINKS). Wheels alone are
taken, so nothing of a package is run, not even its setup; each file is compared with a hash before
it is used. What was approved stays in a folder of the site: an index that is away, or serves other
bytes for the same version, changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from packaging.tags import sys_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from sandbox import lock as locks
from sandbox.advisories import normal
from sandbox.errors import InfrastructureError
from sandbox.lock import Lock, Pin

PIP = (sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input")
PATIENCE = ("--retries", "1", "--timeout", "20")
SECONDS = 600
LIST_SECONDS = 60
MAX_REPORT_BYTES = 32 * 1024 * 1024
MAX_PACKAGES = 40
MAX_SAID_CHARS = 600


class Trouble(StrEnum):
    """Why there are no wheels; stable names, stored and shown."""

    INDEX_AWAY = "index_away"  # worth trying again
    NO_SUCH_VERSION = "no_such_version"
    NO_WHEEL = "no_wheel"  # only sources, or no wheel for this Python and machine
    CONFLICT = "conflict"  # what it needs does not go with the lock
    WRONG_HASH = "wrong_hash"
    TOO_MANY = "too_many"
    FAILED = "failed"


class WheelError(InfrastructureError):
    """No wheels, or not those that were wanted; `code` is a `Trouble`."""

    def __init__(self, code: Trouble, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class Found:
    """What pip chose of one package. `yanked`: why its author took the version back."""

    name: str
    version: str
    sha256: str
    yanked: str = ""

    @property
    def line(self) -> str:
        """`name==version`."""
        return f"{self.name}=={self.version}"


# --- what comes in ---


def resolve(package: str, version: str, lock: Lock, place: Path) -> list[Found]:
    """The package and all that it needs, beside the lock's other packages at their versions.

    Raises WheelError. Nothing is installed; pip reads metadata alone.
    """
    report, pins = place / "report.json", place / "lock.txt"
    others = [line for line in lock.lines() if line.partition("==")[0] != package]
    pins.write_text("".join(f"{line}\n" for line in others), encoding="ascii")
    done = _pip(
        *("install", "--quiet", "--dry-run", "--ignore-installed", "--only-binary=:all:"),
        *("--report", str(report), "--constraint", str(pins), f"{package}=={version}"),
        place=place,
    )
    if done.returncode:
        raise _why_not(package, version, done.stderr, place)
    try:
        if report.stat().st_size > MAX_REPORT_BYTES:
            raise ValueError("it is too large")
        items = json.loads(report.read_bytes())["install"]
        found = [_found(item, done.stderr) for item in items]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise WheelError(
            Trouble.FAILED, f"pip's report on {package} can't be read ({error}): update pip."
        ) from error
    if len(found) > MAX_PACKAGES:
        raise WheelError(
            Trouble.TOO_MANY,
            f"{package} {version} brings {len(found)} packages, over the limit of {MAX_PACKAGES}: "
            "nobody can review that. Write what is needed of it with what is there.",
        )
    return sorted(found, key=lambda one: one.name)


def _found(item: dict[str, object], said: str) -> Found:
    metadata, download = item["metadata"], item["download_info"]
    if type(metadata) is not dict or type(download) is not dict:
        raise TypeError("an entry of another shape")
    name, version = normal(str(metadata["name"])), str(metadata["version"])
    yanked = "its author took it back (yanked)" if item.get("is_yanked") else ""
    for line in said.splitlines():
        # Before pip put it into its report, a warning was all.
        if "yanked version" in line and f"'{name}'" in normal_words(line):
            reason = said.partition("Reason for being yanked:")[2].strip().splitlines()
            yanked = f"its author took it back (yanked): {reason[0] if reason else 'unsaid'}"[:300]
    return Found(
        name=name,
        version=version,
        sha256=str(download["archive_info"]["hashes"]["sha256"]),
        yanked=yanked,
    )


def normal_words(line: str) -> str:
    """A line of pip's with each quoted name normalised."""
    return "'".join(normal(part) if i % 2 else part for i, part in enumerate(line.split("'")))


def download(found: Sequence[Found], into: Path, place: Path) -> None:
    """Exactly these wheels into a folder. Raises WheelError, also for other bytes."""
    pins = [Pin(name=f.name, version=f.version, hashes=(f.sha256,)) for f in found]
    _download(pins, into, place)


def _download(pins: Sequence[Pin], into: Path, place: Path) -> None:
    wanted = place / "wanted.txt"
    wanted.write_text(Lock(pins=tuple(pins)).requirements(), encoding="ascii")
    done = _pip(
        *("download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"),
        *("--dest", str(into), "--requirement", str(wanted)),
        place=place,
    )
    if done.returncode:
        named = ", ".join(pin.line for pin in pins)
        raise _why_not(named, "", done.stderr, place)


def _why_not(package: str, version: str, said: str, place: Path) -> WheelError:
    """pip's refusal as one of ours."""
    shown = " ".join(said.split())[-MAX_SAID_CHARS:]
    what = f"{package} {version}".strip()
    if "DO NOT MATCH THE HASHES" in said or "do not match the hashes" in said.lower():
        return WheelError(
            Trouble.WRONG_HASH,
            f"The index serves other bytes for {what} than those of the hash: nothing was taken. "
            f"Find out who changed them. {shown}",
        )
    if "ResolutionImpossible" in said or "conflicting dependencies" in said:
        return WheelError(
            Trouble.CONFLICT,
            f"What {what} needs does not go with the lock: ask for a version that does, or ask "
            f"for another version of the package in the lock first. {shown}",
        )
    if _index_away(said):
        return WheelError(
            Trouble.INDEX_AWAY,
            f"The index does not answer, so {what} can't be had: try again when it does, or point "
            f"pip at a mirror or a folder of wheels (PIP_INDEX_URL, PIP_FIND_LINKS). {shown}",
        )
    if version and version in _versions(package, place):
        return WheelError(
            Trouble.NO_WHEEL,
            f"There is no wheel of {what} for this Python and machine, and sources are not "
            "taken: building them would run them. Ask for a version that has a wheel, or have a "
            "wheel built and put where pip looks (PIP_FIND_LINKS).",
        )
    if "No matching distribution" in said:
        return WheelError(Trouble.NO_SUCH_VERSION, f"The index has no {what}. {shown}")
    return WheelError(Trouble.FAILED, f"pip can't give {what}: {shown}")


def _index_away(said: str) -> bool:
    signs = ("Retrying (Retry(", "NewConnectionError", "ReadTimeoutError", "Read timed out")
    return any(sign in said for sign in (*signs, "ConnectionResetError", "503 Server Error"))


def _versions(package: str, place: Path) -> list[str]:
    """Every version that the index names, with wheels or without; empty where it says nothing."""
    try:
        done = _pip("index", "versions", package, place=place, seconds=LIST_SECONDS)
    except WheelError:
        return []
    line = next((x for x in done.stdout.splitlines() if x.startswith("Available versions:")), "")
    return [one.strip() for one in line.partition(":")[2].split(",")]


def _pip(
    *arguments: str, place: Path, seconds: float = SECONDS
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 - fixed words, and names that were parsed
            [*PIP, *PATIENCE, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            cwd=place,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "2000"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WheelError(
            Trouble.INDEX_AWAY, f"pip gave no answer within {seconds:g} s ({error})."[:300]
        ) from error


# --- what is kept ---


def store_folder() -> Path:
    """Where a site keeps the wheels that its images are made of."""
    return locks.folder() / "wheels"


def store(wheel: Path) -> Path:
    """Keep a wheel under its hash; gives its place."""
    value = digest(wheel)
    place = store_folder() / value / wheel.name
    if place.is_file() and digest(place) == value:
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=place.parent, prefix=".new-")
        with open(descriptor, "wb") as to, wheel.open("rb") as source:
            shutil.copyfileobj(source, to)
        os.chmod(name, 0o644)
        os.replace(name, place)
    except OSError as error:
        raise InfrastructureError(
            f"The wheel {wheel.name} can't be kept in {place.parent} ({error.strerror or error})."
        ) from error
    return place


def stored(pin: Pin) -> Path | None:
    """A kept wheel of this pin that fits this Python, its bytes compared; None: there is none."""
    fitting = set(sys_tags())
    for value in pin.hashes:
        for path in sorted((store_folder() / value).glob("*.whl")):
            try:
                name, version, _, tags = parse_wheel_filename(path.name)
            except InvalidWheelFilename:
                continue
            same = (normal(name), str(version)) == (pin.name, pin.version)
            if same and tags & fitting and digest(path) == value:
                return path
    return None


def gather(lock: Lock, into: Path) -> list[Pin]:
    """The lock's wheels in a folder, kept ones first; gives the pins that had to be fetched.

    Raises WheelError; every file in the folder has a hash of the lock then.
    """
    missing = []
    for pin in lock.pins:
        if (path := stored(pin)) is None:
            missing.append(pin)
        else:
            shutil.copyfile(path, into / path.name)
    if missing:
        with tempfile.TemporaryDirectory(prefix="escapement-pip-") as place:
            _download(missing, into, Path(place))
    allowed = {value for pin in lock.pins for value in pin.hashes}
    for path in sorted(into.iterdir()):
        if digest(path) not in allowed:
            raise WheelError(
                Trouble.WRONG_HASH, f"{path.name} does not have a hash of the lock: not taken."
            )
        store(path)
    return missing


def install(lock: Lock, wheels: Path, site: Path) -> None:
    """Unpack the lock's wheels into a folder, from that folder of wheels alone. Nothing is run."""
    with tempfile.TemporaryDirectory(prefix="escapement-pip-") as place:
        wanted = Path(place, "lock.txt")
        wanted.write_text(lock.requirements(), encoding="ascii")
        done = _pip(
            *("install", "--quiet", "--no-deps", "--no-compile", "--no-index"),
            *("--only-binary=:all:", "--require-hashes", "--no-warn-script-location"),
            *("--find-links", str(wheels), "--target", str(site), "--requirement", str(wanted)),
            place=Path(place),
        )
    if done.returncode:
        raise WheelError(
            Trouble.FAILED,
            f"pip can't install the lock: {' '.join(done.stderr.split())[-MAX_SAID_CHARS:]}",
        )


def digest(path: Path) -> str:
    """SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
