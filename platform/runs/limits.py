"""Counting what comes in: how often within a window that starts at its first.

Counted in the cache: with several processes and the default cache, each counts by itself. A limit
against floods, never a right.
"""

from __future__ import annotations

import hashlib

from django.core.cache import cache


def count(key: str, seconds: int) -> int:
    """Count one more; how many there were in the window by now."""
    hashed = _hashed(key)
    if cache.add(hashed, 1, seconds):
        return 1
    try:
        return cache.incr(hashed)
    except ValueError:  # the window ended in between
        cache.set(hashed, 1, seconds)
        return 1


def counted(key: str) -> int:
    """How many there were in the window, without one more."""
    return int(cache.get(_hashed(key), 0))


def _hashed(key: str) -> str:
    return f"rate:{hashlib.sha256(key.encode()).hexdigest()}"
