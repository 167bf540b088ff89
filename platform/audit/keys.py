"""The platform's Ed25519 key: it signs audit heads, checkpoints, manifests and desired states.

`platform.key` (hex of the seed, mode 0600) and `platform.pub` (hex) lie in `settings.KEYS`. A key
is made once, by `ensure_keys`, and never replaced silently.
"""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from django.conf import settings


class KeyProblem(RuntimeError):
    """The key can't be used; the message says what to do."""


def _private_path() -> Path:
    return Path(settings.KEYS) / "platform.key"


def public_path() -> Path:
    """The file that holds the public key as hex."""
    return Path(settings.KEYS) / "platform.pub"


def ensure_keys() -> bool:
    """Make the key pair if there is none; True if it was made. Raises KeyProblem on half a pair."""
    folder = Path(settings.KEYS)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = False
    if not _private_path().exists():
        if public_path().exists():
            raise KeyProblem(
                f"{public_path()} has no private key beside it: restore platform.key from backup, "
                "or move both away to begin a new log"
            )
        made = _write_new(_private_path(), Ed25519PrivateKey.generate().private_bytes_raw().hex())
    _write_new(public_path(), _hex_of(signer()), mode=0o644)
    if public_path().read_text().strip() != _hex_of(signer()):
        raise KeyProblem(f"{public_path()} does not belong to platform.key: restore the pair")
    return made


def signer() -> Ed25519PrivateKey:
    """The private key. Raises KeyProblem if it is missing or others may read it."""
    path = _private_path()
    try:
        status = path.stat()
    except FileNotFoundError:
        raise KeyProblem(f"{path} is missing: run `python manage.py init`") from None
    if status.st_mode & 0o077:
        raise KeyProblem(f"others may read {path}: run `chmod 600 {path}`")
    return _load(str(path), status.st_mtime_ns, status.st_ino)


@functools.lru_cache(maxsize=4)
def _load(path: str, _modified: int, _inode: int) -> Ed25519PrivateKey:
    try:
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(Path(path).read_text()))
    except ValueError as error:
        raise KeyProblem(f"{path} holds no Ed25519 key: restore it from backup") from error


def _hex_of(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes_raw().hex()


def public_key_hex() -> str:
    """The public key as 64 hex digits."""
    return _hex_of(signer())


def sign(data: bytes) -> str:
    """The signature (hex) of `data`."""
    return signer().sign(data).hex()


def verify(data: bytes, signature: str, *, public_key: str | None = None) -> bool:
    """Whether `signature` (hex) is that of `data` under `public_key` (hex; default: our own)."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key or public_key_hex()))
        key.verify(bytes.fromhex(signature), data)
    except (InvalidSignature, ValueError):
        return False
    return True


def _write_new(path: Path, content: str, *, mode: int = 0o600) -> bool:
    """Write a file that does not exist yet, whole or not at all; False if it exists."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, mode)
        os.link(name, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(name)
    return True
