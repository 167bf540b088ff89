"""The one byte form of data that is hashed or signed: RFC 8785, without floats.

Pure. It neither hashes entries (`audit.merkle`) nor stores them (`audit.log`).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

import rfc8785

MAX_DEPTH = 32
MAX_INT = 2**53 - 1  # beyond it readers in other languages lose digits


class NotCanonical(ValueError):
    """A value without one byte form; the message says what to do."""


def utc(moment: datetime) -> str:
    """A moment as a UTC string with microseconds; its zone must be known."""
    if moment.tzinfo is None:
        raise NotCanonical(f"{moment!r} has no time zone: use django.utils.timezone.now()")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def text(value: str) -> str:
    """`value` as text that every database and JSON reader can hold: NUL and lone surrogates are
    written as escapes."""
    return value.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


def plain(value: Any, *, depth: int = 0) -> Any:
    """`value` as canonical data: floats and big integers become strings, and so do moments, ids,
    paths and enums; sets become sorted lists. Raises NotCanonical for anything else."""
    if depth > MAX_DEPTH:
        raise NotCanonical(f"data is nested deeper than {MAX_DEPTH}")
    if isinstance(value, Enum):
        return plain(value.value, depth=depth)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if abs(value) <= MAX_INT else str(int(value))
    if isinstance(value, str):
        return text(value)
    if isinstance(value, float | Decimal):
        return repr(value) if isinstance(value, float) else str(value)
    if isinstance(value, datetime):
        return utc(value)
    if isinstance(value, date | UUID | PurePath):
        return text(str(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(
            {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}, depth=depth
        )
    if isinstance(value, Mapping):
        return {text(str(k)): plain(v, depth=depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v, depth=depth + 1) for v in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(v, depth=depth + 1) for v in value), key=encode)
    raise NotCanonical(f"{type(value).__name__} is no data: give text, numbers, lists or mappings")


def encode(value: Any) -> bytes:
    """The canonical bytes. Floats are refused: their digits differ between languages."""
    _refuse_floats(value, 0)
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeError, RecursionError) as error:
        raise NotCanonical(f"not canonical ({error}): pass it through canonical.plain") from error


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical bytes of `plain(value)`."""
    return hashlib.sha256(encode(plain(value))).hexdigest()


def _refuse_floats(value: Any, depth: int) -> None:
    if isinstance(value, float):
        raise NotCanonical(f"{value!r} is a float: pass data through canonical.plain")
    if depth > MAX_DEPTH + 2:
        raise NotCanonical(f"data is nested deeper than {MAX_DEPTH}")
    if isinstance(value, Mapping):
        for item in value.values():
            _refuse_floats(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_floats(item, depth + 1)
