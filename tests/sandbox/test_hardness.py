"""Random input at every place that reads what a draft or a worker wrote: frames, files, trees.

Each property is one that a judge's answer stands on: nothing but plain data comes out of a frame,
nothing but a named refusal out of the door, and no way of writing an import hides it.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox import protocol
from sandbox.checks import characters, complexity, dependencies, imports, interface, secrets
from sandbox.draft import draft_from_files, read_files
from sandbox.protocol import HEADER, MAX_DEPTH, FrameReader, ProtocolError
from sandbox.report import CheckResult, Draft, DraftError, Outcome
from sandbox.syntax import parse

FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
SOME = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
LIMIT = 4096

# --- frames ---

ODD_TEXT = st.text(st.characters(codec=None), max_size=12)  # lone surrogates and NUL as well
ODD_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ODD_TEXT,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(ODD_TEXT, part, max_size=3),
    max_leaves=12,
)
BODIES = st.one_of(
    st.binary(max_size=80),
    ODD_JSON.map(lambda value: json.dumps(value).encode()),
    st.integers(1, 3 * MAX_DEPTH).map(lambda n: b'{"a":' + b"[" * n + b"]" * n + b"}"),
    st.tuples(ODD_TEXT, ODD_JSON, ODD_JSON).map(
        lambda t: "{{{0}:{1},{0}:{2}}}".format(*map(json.dumps, t)).encode()  # a key twice
    ),
)
FRAMES = st.one_of(
    BODIES.map(lambda body: HEADER.pack(len(body)) + body),
    st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=40)).map(
        lambda t: struct.pack(">I", t[0]) + t[1]  # a length that is not the body's
    ),
    st.binary(max_size=40),
)


@SOME
@given(st.lists(FRAMES, max_size=5), st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_any_stream_gives_plain_objects_or_ends(frames: list[bytes], cuts: list[int]) -> None:
    stream, reader, found = b"".join(frames), FrameReader(LIMIT), []
    with contextlib.suppress(ProtocolError):
        while stream:
            for cut in cuts:
                reader.feed(stream[:cut])
                stream = stream[cut:]
                while (body := reader.take()) is not None:
                    assert len(body) <= LIMIT
                    with contextlib.suppress(ProtocolError):
                        found.append(protocol.decode(body))
    assert reader.pending <= sum(map(len, frames))
    for message in found:
        assert type(message) is dict
        protocol.check_plain(message)  # exact types, bounded depth, finite, no lone surrogate
        assert protocol.decode(protocol.encode(message)[HEADER.size :]) == message


@SOME
@given(st.integers(LIMIT + 1, 2**32 - 1), st.binary(max_size=30))
def test_an_announced_giant_is_refused_before_it_is_read(length: int, rest: bytes) -> None:
    with pytest.raises(ProtocolError):
        FrameReader(LIMIT).feed(struct.pack(">I", length) + rest)


# --- the door ---

PATHS = st.one_of(
    st.sampled_from(
        [
            "mechanisms/a.py",
            "tests/test_a.py",
            "mechanisms/../a.py",
            "mechanisms/a.py/",
            "mechanisms/a\u0301.py",
            "mechanisms/A.py",
            "MECHANISMS/a.py",
            "mechanisms//a.py",
            "mechanisms\\a.py",
            "mechanisms/a.pyc",
            "mechanisms/__init__.py",
            "mechanisms/" + "a" * 61 + ".py",
            "./mechanisms/a.py",
            "mechanisms/a.py\x00",
            "tests/conftest.py",
            "mechanisms/none.py ",
        ]
    ),
    st.text(max_size=20),
)
TEXTS = st.one_of(
    st.binary(max_size=120),
    st.text(max_size=120).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [b"", b"\n", b"\xef\xbb\xbf", "x".encode("utf-16"), b"\x00" * 9, b"\x7fELF\x02"]
    ),
)


@SOME
@given(st.dictionaries(PATHS, TEXTS, max_size=4))
def test_the_door_takes_a_draft_or_names_what_is_wrong(files: dict[str, bytes]) -> None:
    refused: DraftError | None = None
    try:
        assert len(draft_from_files(files).files) == 2
    except DraftError as error:
        refused = error
    if refused is not None:
        assert refused.code.replace("_", "").isalnum()
        assert 10 < len(str(refused)) < 2000


@SOME
@given(st.text(max_size=40).filter(lambda name: "/" not in name and "\x00" not in name), TEXTS)
def test_any_name_on_disk(tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("names")
    try:
        (folder / f"{name}.py").write_bytes(data)
    except (OSError, UnicodeError):
        return  # no file has such a name
    with contextlib.suppress(DraftError):
        draft_from_files(read_files(folder))
    with contextlib.suppress(DraftError):
        draft_from_files(read_files(folder / f"{name}.py"), require_test=False)


# --- the checks ---

CHECKS: list[Callable[[Draft], CheckResult]] = [
    characters.check,
    imports.check,
    secrets.check,
    complexity.check,
    dependencies.check,
]
MODULES = st.sampled_from(["os", "sys", "socket", "subprocess", "ctypes", "pickle", "io", "time"])
NAMES = st.sampled_from(["a", "b", "view", "os", "np", "open", "eval", "self", "__class__", "_x"])
ATTRIBUTES = st.sampled_from(["x", "append", "__class__", "system", "load", "gi_frame", "_y"])


def expressions() -> st.SearchStrategy[str]:
    leaves = NAMES | st.sampled_from(["1", "0.5", "'t'", "None", "...", "b'x'", "f'{a}'"])
    return st.recursive(
        leaves,
        lambda e: st.one_of(
            st.tuples(e, ATTRIBUTES).map(lambda t: f"({t[0]}).{t[1]}"),
            st.tuples(e, e).map(lambda t: f"({t[0]})({t[1]})"),
            st.tuples(e, e).map(lambda t: f"({t[0]})[{t[1]}]"),
            st.tuples(NAMES, e).map(lambda t: f"(lambda {t[0].strip('_')}: {t[1]})"),
            st.tuples(e, NAMES, e).map(lambda t: f"[{t[0]} for {t[1]} in ({t[2]})]"),
            st.tuples(NAMES, e).map(lambda t: f"({t[0]} := {t[1]})"),
            st.tuples(e, e).map(lambda t: f"({t[0]} if {t[1]} else {{**a}})"),
            e.map(lambda x: f"f'{{({x})!r:>{{a}}}}'" if "'" not in x else f"({x},)"),
        ),
        max_leaves=6,
    )


def statements() -> st.SearchStrategy[str]:
    e = expressions()
    simple = st.one_of(
        e,
        st.tuples(NAMES, e).map(lambda t: f"{t[0]} = {t[1]}"),
        st.tuples(e, e).map(lambda t: f"assert {t[0]}, {t[1]}"),
        st.sampled_from(["import math", "from math import pi", "pass", "global g", "del a"]),
    )

    def block(body: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        inner = body.map(lambda text: "\n".join(f" {line}" for line in text.split("\n")))
        return st.one_of(
            st.tuples(e, inner).map(lambda t: f"if {t[0]}:\n{t[1]}"),
            st.tuples(NAMES, inner).map(lambda t: f"def f({t[0].strip('_')}=1, *p):\n{t[1]}"),
            st.tuples(NAMES, inner).map(lambda t: f"class {t[0].strip('_')}(A):\n{t[1]}"),
            inner.map(lambda t: f"try:\n{t}\nexcept E as h:\n{t}\nfinally:\n{t}"),
            st.tuples(e, inner).map(
                lambda t: f"match {t[0]}:\n case A(x=1) | [_, *r]:\n {t[1]}".replace(
                    "\n  ", "\n   "
                )
            ),
            st.tuples(e, inner).map(lambda t: f"with {t[0]} as w:\n{t[1]}"),
            st.tuples(body, body).map("\n".join),
        )

    return st.recursive(simple, block, max_leaves=5)


def draft_of(text: str, test: str = "") -> Draft:
    files = {"mechanisms/a.py": text.encode("utf-8", "surrogatepass")}
    if test:
        files["tests/test_a.py"] = test.encode("utf-8", "surrogatepass")
    return Draft(mechanism_path="mechanisms/a.py", files=files)


@FEW
@given(statements())
def test_checks_judge_any_tree_the_same_way_twice(text: str) -> None:
    draft = draft_of(text, text)
    for check in CHECKS:
        first, second = check(draft), check(draft)
        assert first.findings == second.findings
        assert first.outcome in (Outcome.PASSED, Outcome.FAILED)
    with contextlib.suppress(DraftError):
        interface.findings(parse("mechanisms/a.py", draft.source), "mechanisms/a.py")


@FEW
@given(st.text(st.characters(codec=None), max_size=80))
def test_checks_judge_any_text(text: str) -> None:
    for check in CHECKS:
        assert check(draft_of(text)).outcome in (Outcome.PASSED, Outcome.FAILED)


def _wrapped(statement: str, kind: int) -> str:
    """The statement somewhere in a file, at any place where Python would run it."""
    one = statement.replace("\n", "\n ")
    two = statement.replace("\n", "\n  ")
    return [
        statement,
        f"def f():\n {one}",
        f"class A:\n {one}",
        f"if 0:\n pass\nelse:\n {one}",
        f"try:\n {one}\nexcept Exception:\n pass",
        f"async def f():\n async with a:\n  {two}",
        f"class A:\n def f(self):\n  {two}",
        f"match 1:\n case _:\n  {two}",
        f"for a in b:\n pass\nelse:\n {one}",
        f"x = 1; {statement}" if "\n" not in statement else statement,
        f"while 1:\n with a as b:\n  {two}",
        f"def f():\n def g():\n  {two}\n return g",
    ][kind % 12]


REACHING = st.one_of(
    MODULES.map(lambda m: f"import {m}"),
    MODULES.map(lambda m: f"import math, {m} as np"),
    MODULES.map(lambda m: f"import {m}.path"),
    MODULES.map(lambda m: f"from {m} import path as view"),
    MODULES.map(lambda m: f"from {m} import *"),
    MODULES.map(lambda m: f"from {m} import (\n    a,\n)"),
    MODULES.map(lambda m: f"__import__('{m}')"),
    MODULES.map(lambda m: f"x = [__import__][0]('{m}')"),
    MODULES.map(lambda m: f"global {m}; import {m}"),
    MODULES.map(lambda m: f"from . import {m}"),
    MODULES.map(lambda m: f"from random import _{m}"),
    MODULES.map(lambda m: f"from contextlib import {m} as c"),
    st.sampled_from(["eval", "exec", "open", "compile", "globals", "breakpoint"]).map(
        lambda b: f"(lambda f={b}: f)()('1')"
    ),
    st.sampled_from(["eval", "exec", "open"]).map(lambda b: f"print(*map({b}, ['1']))"),
    st.sampled_from(["eval", "exec", "open"]).map(lambda b: f"x = f'{{{b}(1)}}'"),
    st.sampled_from(["a", "1", "()", "f(x)", "a.b", "a[0]"]).map(
        lambda e: f"x = ({e}).__class__.__base__"
    ),
    st.sampled_from(["__subclasses__", "__globals__", "__builtins__", "__code__", "__mro__"]).map(
        lambda d: f"x = a.{d}"
    ),
    st.sampled_from(["__subclasses__", "__globals__", "__reduce__"]).map(
        lambda d: f"x = getattr(a, '{d}')"
    ),
)


@SOME
@given(REACHING, st.integers(0, 11))
def test_no_place_hides_what_is_reached_for(statement: str, kind: int) -> None:
    text = _wrapped(statement, kind)
    try:
        ast.parse(text)
        compile(text, "a", "exec")
    except SyntaxError:
        return  # `import *` in a function: no Python either
    result = imports.check(draft_of(text))
    assert result.outcome is Outcome.FAILED, text
    assert imports.check(draft_of("x = 1", text)).outcome is Outcome.FAILED, text


@FEW
@given(
    st.lists(st.sampled_from("aA1-._~:/@{}'+=_ \t") | st.characters(codec="ascii"), max_size=300)
)
def test_secrets_never_repeat_what_they_found(parts: list[str]) -> None:
    secret = "sk-proj-" + "Zx9Qv7Lm2Kp4Rt8W" * 2
    text = f"x = {json.dumps(''.join(parts))}\ny = '{secret}'"
    result = secrets.check(draft_of(text))
    assert any(f.rule == "secret-token" for f in result.findings)
    assert not [f for f in result.findings if "Zx9Qv7" in f.message]


REPEATED = ["a.", "a+", "sk-", "sk-1", "eyJ-", "eyJaaaaaaaaaa.", "a://b:c", "-----BEGIN A ", "{"]
REPEATED += ["{.__a", "xoxb-", "ghp_", "'a'+", "\\u0020", "\t", " ", "coding:", "((", "[{", "é"]


@pytest.mark.parametrize("part", REPEATED)
def test_no_repetition_takes_a_check_long(part: str) -> None:
    """Each would take minutes if a pattern of ours went back and forth over it: the run of the
    tests would be seen to hang. There is no clock here, on purpose."""
    text = f"x = 1  # {part * (60_000 // len(part))}\ny = {json.dumps(part * 2000)}\n"
    for check in CHECKS:
        check(draft_of(text))


def test_read_only_what_is_a_file(tmp_path: Path) -> None:
    plain = tmp_path / "a.py"
    plain.write_text("x = 1\n")
    kinds: dict[str, Any] = {
        "fifo.py": os.mkfifo,
        "folder.py": lambda p: p.mkdir(),
        "link.py": lambda p: p.symlink_to(plain),
        "loop.py": lambda p: p.symlink_to(p),
        "dangling.py": lambda p: p.symlink_to(tmp_path / "nowhere"),
        "device.py": lambda p: p.symlink_to("/dev/zero"),
    }
    codes = {}
    for name, make in kinds.items():
        make(tmp_path / name)
        with pytest.raises(DraftError) as caught:
            draft_from_files(read_files(tmp_path / name), require_test=False)
        codes[name] = caught.value.code
    assert codes == {
        "fifo.py": "path_not_allowed",
        "folder.py": "empty",
        "link.py": "symlink",
        "loop.py": "symlink",
        "dangling.py": "symlink",
        "device.py": "symlink",
    }
    with pytest.raises(DraftError) as caught:
        read_files(Path("/dev/zero"))
    assert caught.value.code == "path_not_allowed"
