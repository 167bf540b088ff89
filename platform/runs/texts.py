"""Text from outside, made fit for any database: NUL and lone surrogates become escapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from audit.canonical import text


def cleaned(value: Any) -> Any:
    """JSON data with every text in it cleaned; nothing else changes."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, Mapping):
        return {text(str(k)): cleaned(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(v) for v in value]
    return value
