"""Files with their SHA-256 in a manifest beside them: recorded once, checked before use."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from sandbox.files import put

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 1024 * 1024


class ShardError(RuntimeError):
    """Shards or what is made of them can't be used; the message says what to do."""


def recorded(folder: Path) -> dict[str, str]:
    """What the folder's manifest says: hashes by file name. Raises ShardError."""
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ValueError("too long")
        found = json.loads(path.read_bytes())
        return {str(name): str(digest) for name, digest in found.items()}
    except (ValueError, AttributeError, RecursionError):
        raise ShardError(f"{path} can't be read: remove it; hashes are then taken anew") from None


def record(folder: Path, digests: dict[str, str]) -> None:
    """Add to the manifest; the caller holds the folder's lock."""
    known = {**recorded(folder), **digests}
    write(folder / MANIFEST, json.dumps(known, indent=1, sort_keys=True).encode())


def is_right(path: Path) -> bool:
    """Whether the file is there with its recorded hash."""
    known = recorded(path.parent).get(path.name)
    return known is not None and path.is_file() and sha256(path) == known


def verify(path: Path) -> None:
    """Raises ShardError unless `path` is what its folder's manifest recorded."""
    if not is_right(path):
        raise ShardError(f"{path} is not what was prepared: remove it; `prepare` makes it anew")


def write(path: Path, data: bytes) -> None:
    """All or nothing, in a folder that is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    put(path, data, mode=0o644)


def sha256(path: Path) -> str:
    """Of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
