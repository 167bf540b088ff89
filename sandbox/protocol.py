"""Length-prefixed JSON frames between the host and the worker: the only door of the sandbox.

A frame is four bytes of length (big endian) and that many bytes of JSON, an object. The reading
side trusts nothing: length, depth, duplicate keys, NaN, infinities, lone surrogates and NUL are
refused. Used on both sides, so standard library only. What the messages mean is not known here.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any, NoReturn

HEADER = struct.Struct(">I")
MAX_REQUEST_BYTES = 32 * 1024 * 1024  # host to worker: some 50,000 trials of trace
MAX_DEPTH = 32


class ProtocolError(ValueError):
    """Bytes that are no frame of ours; the message says what is wrong with them."""


def encode(message: dict[str, Any], *, limit: int = MAX_REQUEST_BYTES) -> bytes:
    """The frame of `message`; ProtocolError if it is too large or holds what JSON can't."""
    try:
        body = _encoder.encode(message).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ProtocolError(f"not plain data: {error}") from error
    if len(body) > limit:
        raise ProtocolError(f"a message of {len(body)} bytes; the limit is {limit}")
    return HEADER.pack(len(body)) + body


def decode(body: bytes) -> dict[str, Any]:
    """The object in one frame's bytes; ProtocolError for anything that is not exactly that."""
    try:
        message = _decoder.decode(body.decode("utf-8"))
    except ProtocolError:
        raise
    except RecursionError as error:
        raise ProtocolError(f"nested deeper than {MAX_DEPTH} levels") from error
    except ValueError as error:
        raise ProtocolError(f"not JSON: {error}") from error
    if type(message) is not dict:
        raise ProtocolError(f"the message is not an object but {type(message).__name__}")
    check_plain(message)
    return message


def check_plain(value: object, *, max_depth: int = MAX_DEPTH) -> None:
    """Raise ProtocolError unless `value` is plain JSON data of exact types and bounded depth."""
    todo: list[tuple[object, int]] = [(value, 1)]
    while todo:
        item, depth = todo.pop()
        if depth > max_depth:
            raise ProtocolError(f"nested deeper than {max_depth} levels")
        if type(item) is dict:
            for key, part in item.items():
                _check_text(key)
                todo.append((part, depth + 1))
        elif type(item) is list:
            todo.extend((part, depth + 1) for part in item)
        elif type(item) is str:
            _check_text(item)
        elif type(item) is float:
            if not math.isfinite(item):
                raise ProtocolError(f"{item!r} is not a finite number")
        elif item is not None and type(item) is not int and type(item) is not bool:
            raise ProtocolError(f"{type(item).__name__} is not plain data")


class FrameReader:
    """Cuts a byte stream into frames. A frame longer than `limit` is refused by its header."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes that were read and belong to no whole frame yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take up bytes of the stream; ProtocolError as soon as the header breaks the limit."""
        self._buffer += data
        if len(self._buffer) >= HEADER.size:
            (length,) = HEADER.unpack_from(self._buffer)
            if length > self.limit:
                raise ProtocolError(f"a frame of {length} bytes; the limit is {self.limit}")

    def take(self) -> bytes | None:
        """The next whole frame's bytes, or None while it is incomplete."""
        if len(self._buffer) < HEADER.size:
            return None
        (length,) = HEADER.unpack_from(self._buffer)
        end = HEADER.size + length
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[HEADER.size : end])
        del self._buffer[:end]
        self.feed(b"")  # the next header, if it is here already, has to keep the limit too
        return body


def _check_text(text: object) -> None:
    if type(text) is not str:
        raise ProtocolError(f"a key of type {type(text).__name__}; keys must be text")
    if "\x00" in text:
        raise ProtocolError("text with a NUL character")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ProtocolError("text with a lone surrogate") from error


def _no_constant(name: str) -> NoReturn:
    raise ProtocolError(f"{name} is not a finite number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ProtocolError(f"{text[:40]} is not a finite number")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ProtocolError("an object with a key twice")
    return found


# Made once: a screening has a thousand frames.
_encoder = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_decoder = json.JSONDecoder(
    parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_unique
)
