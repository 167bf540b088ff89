"""The text of the gpt task: the Python standard library's own source, needing no download.

Bytes are split into training and validation by whole files (a hash of the file's path decides),
written once to a cache file, and known by a SHA-256 over the split and the bytes. The reader
verifies that digest each time. No torch here: the trainer makes tensors of it.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

MAX_FILE_BYTES = 512 * 1024
VALIDATION_SHARE = 13  # of 256: about 5 % of the files
MINIMUM_BYTES = 1024 * 1024
# Tables, tests and what distributions leave out: the rest is prose-like code everywhere.
EXCLUDED = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "encodings"}
    | {"pydoc_data", "turtledemo", "idlelib", "distutils", "ensurepip", "__pycache__"}
)


class CorpusError(RuntimeError):
    """The text is missing or not what was recorded; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """One corpus in its cache file: the first `train_bytes` bytes are for training."""

    path: Path
    digest: str
    train_bytes: int
    total_bytes: int
    files: int


def _digest(train_bytes: int, data: bytes) -> str:
    return hashlib.sha256(b"escapement corpus v1\n%d\n" % train_bytes + data).hexdigest()


def _is_validation(relative: str) -> bool:
    return hashlib.sha256(relative.encode()).digest()[0] < VALIDATION_SHARE


def _collect(root: Path) -> tuple[bytes, bytes, int]:
    train: list[bytes] = []
    held_out: list[bytes] = []
    for folder, names, files in os.walk(root):
        names[:] = sorted(n for n in names if n not in EXCLUDED and not n.startswith("config-"))
        for name in sorted(files):
            path = Path(folder, name)
            if path.suffix != ".py" or name.startswith("_sysconfigdata"):
                continue
            data = path.read_bytes()
            if 0 < len(data) <= MAX_FILE_BYTES:
                relative = path.relative_to(root).as_posix()
                (held_out if _is_validation(relative) else train).append(data)
    return b"".join(train), b"".join(held_out), len(train) + len(held_out)


def prepare(cache: Path, *, root: Path | None = None) -> Corpus:
    """Collect the text, make sure that `cache` holds exactly it, and describe it.

    Raises CorpusError.
    """
    try:
        return _prepare(cache, root)
    except OSError as error:
        raise CorpusError(
            f"the text can't be read, or not be kept in {cache}: {error.strerror}; ESCAPEMENT_VAR "
            "names another folder"
        ) from error


def _prepare(cache: Path, root: Path | None) -> Corpus:
    root = root or Path(sysconfig.get_paths()["stdlib"])
    train, held_out, files = _collect(root)
    if len(train) + len(held_out) < MINIMUM_BYTES or not held_out:
        raise CorpusError(
            f"{root} holds {len(train) + len(held_out)} bytes of Python source in {files} files; "
            f"at least {MINIMUM_BYTES} are needed: install a full Python standard library"
        )
    data = train + held_out
    digest = _digest(len(train), data)
    path = cache / f"stdlib-{digest[:16]}.bin"
    if not (path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data):
        _write(path, data)
    return Corpus(
        path=path, digest=digest, train_bytes=len(train), total_bytes=len(data), files=files
    )


def _write(path: Path, data: bytes) -> None:
    """All or nothing: other processes may read the same cache at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".corpus-")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path, *, digest: str, train_bytes: int) -> tuple[bytes, bytes]:
    """Training and validation bytes, verified against `digest`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"cannot read the corpus {path}: {error}") from error
    seen = _digest(train_bytes, data)
    if seen != digest:
        raise CorpusError(
            f"the corpus {path} has digest {seen[:12]}, recorded is {digest[:12]}: "
            "remove the file; the next run writes it anew"
        )
    return data[:train_bytes], data[train_bytes:]
