"""What is an answer in a text: the whole JSON objects, no thoughts, and no part of a broken one."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.llm.answers import Fault, Unfit, objects

KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)


@given(st.text(max_size=200), st.dictionaries(KEYS, st.integers()), st.text())
def test_the_first_object_is_found_in_any_prose(before, data, after):
    text = before.replace("{", "(") + json.dumps(data) + after.replace("{", "(")
    assert objects(text) == [data]


@given(st.text(alphabet='{}[]":,01 a\\', max_size=60))
def test_extraction_raises_nothing_else(text):
    with suppress(Unfit):
        assert all(isinstance(found, dict) for found in objects(text))


@pytest.mark.parametrize(
    "text", ['{"a":' * 30_000, "{}" * 200, '{"' * 200_000, "{ " * 200_000, '{"\\{"' * 100_000]
)
def test_what_was_made_to_be_slow_ends(text):
    with suppress(Unfit):
        assert objects(text) == []


def test_thoughts_before_an_answer_are_passed_over():
    assert objects('<think>{"a": 1}? No.</think>\n```json\n{"a": 2}\n```') == [{"a": 2}]
    assert objects('perhaps {"a": 1}</think>{"a": 2}') == [{"a": 2}]
    assert objects('or {"a": 1,, </think>{"a": 2}') == [{"a": 2}]
    assert objects('<think>no</think>{"a": "</think> b"}') == [{"a": "</think> b"}]
    assert objects('{"a": "</think>"}') == [{"a": "</think>"}]
    assert objects('{"a": 1}</think> and that is all') == []


@pytest.mark.parametrize(
    ("opened", "closed"),
    [
        ("<thought>", "</thought>"),
        ("<Reasoning>", "</Reasoning>"),
        ("<seed:think>", "</seed:think>"),
        ("[THINK]", "[/THINK]"),
        ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
        ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ],
)
def test_thoughts_are_known_by_the_marks_of_many_models(opened, closed):
    assert objects(f'{opened}say {{"a": 1}}{closed}{{"a": 2}}') == [{"a": 2}]
    with pytest.raises(Unfit, match="thoughts have no end"):
        objects(f'{opened}say {{"a": 1}}')


def test_a_line_may_end_within_a_text():
    assert objects('{"source": "one\n\ttwo"}') == [{"source": "one\n\ttwo"}]


@pytest.mark.parametrize(
    "text", ['{"a": [{"b": 1}', '{"a": {"b": 1}, "c', '{"a": {"b": 1}, "c": "d', '{"a": {"b": 1}\n']
)
def test_a_part_of_half_an_object_is_no_answer(text):
    with pytest.raises(Unfit) as caught:
        objects(text)
    assert caught.value.fault is Fault.CUT_OFF


@pytest.mark.parametrize(
    "text",
    [
        "{'a': {\"b\": 1}}",
        '{ // so\n"a": {"b": 1}}',
        '{"a": {"b": 1},}',
        '{"a": "\\alpha", "c": {"b": 1}}',
        '{"a": "say "b"", "c": {"b": 1}}',
    ],
)
def test_a_part_of_a_broken_object_is_no_answer(text):
    with pytest.raises(Unfit, match="has a mistake at its character") as caught:
        objects(text)
    assert caught.value.fault is Fault.BAD_JSON
