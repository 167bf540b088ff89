"""Bytes, hashes and signatures: canonical JSON, the Merkle tree of RFC 6962, signed notes."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NOTE_ORIGIN = "escapement/audit"


def canonical(value: Any) -> bytes:
    """RFC 8785 for data without floats."""

    def ordered(item: Any) -> Any:
        if isinstance(item, float):
            raise ValueError("a float")
        if isinstance(item, dict):
            return {k: ordered(item[k]) for k in sorted(item, key=lambda k: k.encode("utf-16-be"))}
        return [ordered(i) for i in item] if isinstance(item, list) else item

    return json.dumps(ordered(value), separators=(",", ":"), ensure_ascii=False).encode()


def sha256(data: bytes) -> str:
    """SHA-256 as hex."""
    return hashlib.sha256(data).hexdigest()


def grown(frontier: list[bytes], size: int, leaf: bytes) -> list[bytes]:
    """RFC 6962: the roots of the full subtrees after one more leaf."""
    grown = list(frontier)
    while size & 1:
        leaf = hashlib.sha256(b"\x01" + grown.pop() + leaf).digest()
        size >>= 1
    return [*grown, leaf]


def root_of(frontier: Sequence[bytes]) -> str:
    if not frontier:
        return sha256(b"")
    *rest, root = frontier
    for subtree in reversed(rest):
        root = hashlib.sha256(b"\x01" + subtree + root).digest()
    return root.hex()


def head_bytes(*, size: int, hash: str, root: str, key: str) -> bytes:  # noqa: A002 - its name
    """The bytes that are signed for a head."""
    return f"escapement audit head v1\n{size}\n{hash}\n{root}\n{key}\n".encode()


def key_id(key: str) -> bytes:
    """The four bytes that name an Ed25519 key in a signed note."""
    return hashlib.sha256(NOTE_ORIGIN.encode() + b"\n\x01" + bytes.fromhex(key)).digest()[:4]


@dataclass(frozen=True, kw_only=True)
class Note:
    """A parsed checkpoint; `signed` is what `signature` (hex) is about. Nothing is proved yet."""

    size: int
    root: str
    head: str
    at: str
    key: str
    signed: bytes
    signature: str


def parse_note(text: str) -> Note:
    """A checkpoint's fields. Raises ValueError for anything but our form."""
    body, separator, tail = text.partition("\n\n")
    lines, signatures = body.split("\n"), tail.removesuffix("\n").split("\n")
    if not separator or len(lines) != 6 or len(signatures) != 1 or lines[0] != NOTE_ORIGIN:
        raise ValueError("it is not a note of six lines and one signature")
    named = dict(line.partition(" ")[::2] for line in lines[3:])
    prefix = f"\u2014 {NOTE_ORIGIN} "
    if set(named) != {"head", "at", "key"} or not signatures[0].startswith(prefix):
        raise ValueError("head, at, key or signature is missing")
    raw = base64.b64decode(signatures[0].removeprefix(prefix), validate=True)
    root = base64.b64decode(lines[2], validate=True)
    if len(raw) != 68 or len(root) != 32 or str(int(lines[1])) != lines[1]:
        raise ValueError("size, root or signature has a wrong length")
    if raw[:4] != key_id(named["key"]):
        raise ValueError("its signature is of another key than it says")
    return Note(
        size=int(lines[1]),
        root=root.hex(),
        signed=f"{body}\n".encode(),
        signature=raw[4:].hex(),
        **named,
    )


def signature_holds(key: str, data: bytes, signature: str) -> bool | None:
    """Whether the signature is right; None if `cryptography` is not installed."""
    try:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - optional
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
            Ed25519PublicKey,
        )
    except ImportError:
        return None
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(
            bytes.fromhex(signature), data
        )
    except (InvalidSignature, ValueError):
        return False
    return True
