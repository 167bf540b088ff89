"""Reading a file of advisories: JSON, gzip or zip, recognised by content and within limits.

Gives raw records with the place they stand at; what a record means is `sandbox.advisories`'.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn

MAX_FILE_BYTES = 256 * 1024 * 1024
MAX_CONTENT_BYTES = 512 * 1024 * 1024
MAX_RECORD_BYTES = 16 * 1024 * 1024
MAX_RECORDS = 500_000
_CHUNK_BYTES = 1024 * 1024


class SnapshotProblem(StrEnum):
    """Why a snapshot is not taken, or not used."""

    UNREADABLE = "unreadable"
    TOO_LARGE = "too_large"
    TRUNCATED = "truncated"
    NOT_JSON = "not_json"
    WRONG_SHAPE = "wrong_shape"
    EMPTY = "empty"
    FUTURE = "future"
    OLDER = "older"
    DAMAGED = "damaged"


class SnapshotError(ValueError):
    """A snapshot that is none; `code` is a `SnapshotProblem`, the message says what to do."""

    def __init__(self, code: SnapshotProblem, message: str) -> None:
        super().__init__(message)
        self.code = code


def read_records(file: Path) -> Iterator[tuple[str, Any]]:
    """Every record of a file with its place in it, in order. Raises SnapshotError."""
    try:
        if not file.is_file():
            _stop(SnapshotProblem.UNREADABLE, f"{file} is no file: name a file of advisories.")
        if file.stat().st_size > MAX_FILE_BYTES:
            _stop(
                SnapshotProblem.TOO_LARGE,
                f"{file.name} has over {MAX_FILE_BYTES} bytes: take the archive of PyPI alone.",
            )
        with file.open("rb") as opened:
            start = opened.read(4)
        if start[:2] == b"PK":
            yield from _from_zip(file)
        else:
            data = _gunzip(file) if start[:2] == b"\x1f\x8b" else file.read_bytes()
            yield from _listed(file.name, _json(file.name, data))
    except OSError as error:
        _stop(SnapshotProblem.UNREADABLE, f"{file} can't be read ({error.strerror or error}).")


def _from_zip(file: Path) -> Iterator[tuple[str, Any]]:
    left = MAX_CONTENT_BYTES
    try:
        with zipfile.ZipFile(file) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
            if len(members) > MAX_RECORDS:
                _stop(SnapshotProblem.TOO_LARGE, f"{file.name} has over {MAX_RECORDS} files.")
            for member in members:
                if not member.filename.endswith(".json"):
                    _stop(
                        SnapshotProblem.WRONG_SHAPE,
                        f"{file.name} holds {member.filename[:200]!r}: an archive of advisories "
                        "has .json files alone.",
                    )
                with archive.open(member) as opened:
                    data = opened.read(min(MAX_RECORD_BYTES, left) + 1)
                left -= len(data)
                if len(data) > MAX_RECORD_BYTES or left < 0:
                    _stop(SnapshotProblem.TOO_LARGE, f"{file.name} unpacks to too much.")
                yield from _listed(member.filename, _json(member.filename, data))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        _stop(SnapshotProblem.TRUNCATED, f"{file.name} is cut off or damaged ({error}).")


def _gunzip(file: Path) -> bytes:
    unpack = zlib.decompressobj(wbits=31)
    data = bytearray()
    try:
        with file.open("rb") as opened:
            while chunk := opened.read(_CHUNK_BYTES):
                data += unpack.decompress(chunk, MAX_CONTENT_BYTES + 1 - len(data))
                if len(data) > MAX_CONTENT_BYTES:
                    _stop(SnapshotProblem.TOO_LARGE, f"{file.name} unpacks to too much.")
    except zlib.error as error:
        _stop(SnapshotProblem.TRUNCATED, f"{file.name} is cut off or damaged ({error}).")
    if not unpack.eof:
        _stop(SnapshotProblem.TRUNCATED, f"{file.name} is cut off: fetch it again.")
    return bytes(data)


def _json(name: str, data: bytes) -> Any:
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        text = data.rstrip()
        if text[:1] in (b"[", b"{") and error.pos >= len(error.doc.rstrip()):
            _stop(SnapshotProblem.TRUNCATED, f"{name} is cut off: fetch it again.")
        _stop(SnapshotProblem.NOT_JSON, f"{name} is not JSON ({error}).")
    except (UnicodeDecodeError, RecursionError) as error:
        _stop(SnapshotProblem.NOT_JSON, f"{name} is not JSON ({type(error).__name__}).")


def _listed(name: str, data: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(data, dict) and "vulns" in data:
        data = data["vulns"]
    if isinstance(data, dict):
        yield name, data
    elif isinstance(data, list):
        if len(data) > MAX_RECORDS:
            _stop(SnapshotProblem.TOO_LARGE, f"{name} has over {MAX_RECORDS} records.")
        for index, one in enumerate(data):
            yield f"{name}[{index}]", one
    else:
        _stop(SnapshotProblem.WRONG_SHAPE, f"{name} is neither a record nor a list of records.")


def _stop(code: SnapshotProblem, message: str) -> NoReturn:
    raise SnapshotError(code, message)
