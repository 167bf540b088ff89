"""The Merkle tree of RFC 6962 over the log's entries, grown one leaf at a time.

Pure. A *frontier* is the list of the roots of the full subtrees of a tree, largest first: one for
each bit that is set in the tree's size. It is all that is needed to append and to give the root.
The verifier has its own copy of this: it must not trust the code that it checks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def grow(frontier: Sequence[bytes], size: int, leaf: bytes) -> list[bytes]:
    """The frontier of `size` leaves with one more."""
    if len(frontier) != size.bit_count():
        raise ValueError(f"a tree of {size} leaves has no frontier of {len(frontier)} hashes")
    grown = list(frontier)
    while size & 1:
        leaf = node_hash(grown.pop(), leaf)
        size >>= 1
    return [*grown, leaf]


def root(frontier: Sequence[bytes]) -> bytes:
    """The root of the tree with this frontier."""
    if not frontier:
        return EMPTY_ROOT
    *rest, result = frontier
    for subtree in reversed(rest):
        result = node_hash(subtree, result)
    return result
