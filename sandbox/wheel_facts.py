"""What a wheel is, by what lies in it: its hash, what it says of itself, what it would bring.

Wheels are opened as archives within limits; nothing of them is installed or run. What speaks for
or against one is said elsewhere (`sandbox.depreq`).
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from pathlib import Path, PurePosixPath

from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import sys_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from sandbox.advisories import normal
from sandbox.sbom import licence_of

MAX_WHEEL_BYTES = 512 * 1024 * 1024
MAX_UNPACKED_BYTES = 2 * 1024 * 1024 * 1024
MAX_METADATA_BYTES = 1024 * 1024
MAX_WHEELS = 200
MAX_ENTRIES = 50_000
NATIVE = (".so", ".pyd", ".dll", ".dylib", ".exe")


class RequestError(ValueError):
    """A request that no record can be made of; `code` is stable, the message says what to do."""

    def __init__(self, message: str, code: str = "no_record") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """One wheel, by what is in it."""

    package: str
    version: str
    file: str
    sha256: str
    size_bytes: int
    unpacked_bytes: int
    fits_image: bool  # its tags are among those of the Python that the image is built with
    native: tuple[str, ...]  # compiled files: nobody can read them
    needs: tuple[str, ...]  # its requirements, extras left out
    requires_python: str
    licence: str
    summary: str
    top: tuple[str, ...]  # what it puts beside other packages, by import name
    left_out: tuple[str, ...]  # scripts and .pth files: they do not come into the image


def candidates(folder: Path, package: str, version: str) -> list[Path]:
    """The wheels of that version in a folder, by their names. Raises RequestError."""
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


def look(path: Path) -> Wheel:
    """What one is. Raises RequestError."""
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
    files = [e.filename for e in entries if not e.is_dir()]
    if any(PurePosixPath(n).is_absolute() or ".." in PurePosixPath(n).parts for n in files):
        raise RequestError(f"{path.name} has a file that would lie outside of its folder.")
    unpacked = sum(e.file_size for e in entries)
    if unpacked > MAX_UNPACKED_BYTES:
        raise RequestError(f"{path.name} unpacks to over {MAX_UNPACKED_BYTES} bytes.")
    return Wheel(
        package=name,
        version=str(version),
        file=path.name,
        sha256=digest,
        size_bytes=path.stat().st_size,
        unpacked_bytes=unpacked,
        fits_image=bool(tags & set(sys_tags())),
        native=tuple(n for n in files if n.endswith(NATIVE) or ".so." in n),
        needs=tuple(sorted(_needs(metadata))),
        requires_python=str(metadata.get("Requires-Python") or ""),
        licence=licence_of(metadata),
        summary=str(metadata.get("Summary") or "")[:300],
        top=tuple(sorted(_top(files))),
        left_out=tuple(_left_out(archive, entries)),
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


def _top(files: Sequence[str]) -> set[str]:
    """Import names at the top of it, what its `.data` folder puts there included."""
    found = set()
    for name in files:
        head, *rest = name.split("/")
        if head.endswith(".data") and len(rest) > 1 and rest[0] in {"purelib", "platlib"}:
            head, rest = rest[1], rest[2:]
        if not head.endswith((".dist-info", ".data", ".pth")) and (
            rest or head.endswith((".py", ".so"))
        ):
            found.add(head if rest else head.partition(".")[0])
    return found


def _left_out(archive: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo]) -> Iterator[str]:
    """What would be started by itself, or from a shell: it is taken out again."""
    for entry in entries:
        name = entry.filename
        if name.endswith(".pth") or ("/scripts/" in name and ".data/" in name):
            yield name
        if name.endswith(".dist-info/entry_points.txt"):
            yield name


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
