"""Frames: what goes in comes out, and nothing else is ever taken for a frame."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import protocol
from sandbox.protocol import HEADER, FrameReader, ProtocolError

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
LEAVES = st.none() | st.booleans() | st.integers() | TEXT
LEAVES |= st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    LEAVES, lambda part: st.lists(part, max_size=4) | st.dictionaries(TEXT, part, max_size=4)
)
MESSAGES = st.dictionaries(TEXT, PLAIN, max_size=5)


def read(data: bytes, limit: int = 10_000) -> list[bytes]:
    reader = FrameReader(limit)
    reader.feed(data)
    frames = []
    while (frame := reader.take()) is not None:
        frames.append(frame)
    return frames


@given(st.lists(MESSAGES, max_size=4), st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_messages_survive_any_cut_of_the_stream(
    messages: list[dict[str, Any]], cuts: list[int]
) -> None:
    stream = b"".join(protocol.encode(m) for m in messages)
    reader, found = FrameReader(1 << 20), []
    while stream:
        for cut in cuts:
            reader.feed(stream[:cut])
            stream = stream[cut:]
            while (frame := reader.take()) is not None:
                found.append(protocol.decode(frame))
    assert found == messages
    assert reader.pending == 0


@given(st.binary(max_size=200))
def test_arbitrary_bytes_decode_to_plain_data_or_are_refused(data: bytes) -> None:
    try:
        message = protocol.decode(data)
    except ProtocolError:
        return
    protocol.check_plain(message)
    assert protocol.decode(protocol.encode(message)[HEADER.size :]) == message


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 2}',
        b'{"a": "\\ud800"}',
        b'{"a": "\\u0000"}',
        b'{"\\u0000": 1}',
        b"[]",
        b'"text"',
        b"1",
        b"null",
        b"",
        b"{",
        b'{"a": 1} {"b": 2}',
        b'{"a": "\xff"}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a":' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    ],
)
def test_what_is_no_plain_object_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        protocol.decode(body)


def test_a_long_frame_is_refused_by_its_header_alone() -> None:
    reader = FrameReader(100)
    with pytest.raises(ProtocolError, match="101 bytes; the limit is 100"):
        reader.feed(HEADER.pack(101))


def test_a_long_second_frame_is_refused_when_the_first_is_taken() -> None:
    reader = FrameReader(100)
    reader.feed(protocol.encode({}) + HEADER.pack(101))
    with pytest.raises(ProtocolError):
        reader.take()


def test_half_a_frame_is_pending() -> None:
    reader = FrameReader(100)
    reader.feed(protocol.encode({"a": 1})[:-1])
    assert reader.take() is None
    assert reader.pending == HEADER.size + len('{"a":1')


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}, object(), b"bytes"])
def test_what_json_has_no_word_for_is_not_sent(value: object) -> None:
    with pytest.raises(ProtocolError):
        protocol.encode({"a": value})


def test_a_message_over_the_limit_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="limit is 10"):
        protocol.encode({"a": "x" * 100}, limit=10)


class LyingFloat(float):
    """Says one number and is another."""

    def __repr__(self) -> str:
        return "0.5"


def test_a_lying_float_travels_as_what_it_is_and_is_not_plain() -> None:
    assert json.loads(protocol.encode({"a": LyingFloat(99)})[HEADER.size :]) == {"a": 99.0}
    with pytest.raises(ProtocolError, match="LyingFloat is not plain"):
        protocol.check_plain({"a": LyingFloat(99)})
