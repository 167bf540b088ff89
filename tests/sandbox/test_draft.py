"""The rules at the door, and recognising approved operators."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.draft import (
    draft_from_files,
    load_draft,
    mechanism_classes,
    name_from,
    read_files,
)
from sandbox.report import MAX_FILE_BYTES, DraftError
from sandbox.syntax import MAX_DEPTH, parse

GOOD = b"from sandbox.mechanism import Mechanism\n\n\nclass A(Mechanism):\n    pass\n"
TEST = b"def test_a():\n    assert True\n"
FILES = {"mechanisms/a.py": GOOD, "tests/test_a.py": TEST}


def code_of(files: dict[str, bytes]) -> str:
    with pytest.raises(DraftError) as caught:
        draft_from_files(files)
    assert str(caught.value)
    return caught.value.code


def test_a_good_draft() -> None:
    draft = draft_from_files(FILES)
    assert (draft.name, draft.source, list(draft.tests)) == ("a", GOOD, ["tests/test_a.py"])


def test_two_mechanism_files() -> None:
    assert code_of({"mechanisms/a.py": GOOD, "mechanisms/b.py": GOOD}) == "two_mechanisms"


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({}, "empty"),
        ({"mechanisms/a.py": GOOD}, "no_test"),
        ({"tests/test_a.py": TEST}, "no_mechanism"),
        ({**FILES, "README.md": b"x"}, "too_many_files"),
        ({"mechanisms/a.py": GOOD, "tests/test_b.py": TEST}, "no_test"),
        ({"mechanisms/A.py": GOOD, "tests/test_A.py": TEST}, "path_not_allowed"),
        ({"mechanisms/../a.py": GOOD, "tests/test_a.py": TEST}, "path_not_allowed"),
        ({"/mechanisms/a.py": GOOD, "tests/test_a.py": TEST}, "path_not_allowed"),
        ({"mechanisms/a.py\n": GOOD, "tests/test_a.py": TEST}, "path_not_allowed"),
        ({"tests/conftest.py": GOOD, "mechanisms/a.py": GOOD}, "path_not_allowed"),
        ({"mechanisms/class.py": GOOD, "tests/test_class.py": TEST}, "path_not_allowed"),
        ({**FILES, "mechanisms/a.py": b"#" * (MAX_FILE_BYTES + 1)}, "too_large"),
        ({**FILES, "mechanisms/a.py": b" \n"}, "empty"),
        ({**FILES, "mechanisms/a.py": b"x = '\xff'"}, "not_utf8"),
        ({**FILES, "mechanisms/a.py": b"# coding: latin-1\n" + GOOD}, "not_utf8"),
        ({**FILES, "mechanisms/a.py": b"def (:\n"}, "syntax_error"),
        ({**FILES, "mechanisms/a.py": GOOD + b"\x00"}, "syntax_error"),
        ({**FILES, "tests/test_a.py": b"def (:\n"}, "syntax_error"),
        ({**FILES, "mechanisms/a.py": b"x = 1\n"}, "no_mechanism"),
        ({**FILES, "mechanisms/a.py": GOOD + b"class B(A):\n    pass\n"}, "two_mechanisms"),
    ],
)
def test_refused_with_a_code(changed: dict[str, bytes], code: str) -> None:
    assert code_of(changed) == code


NESTED = [
    "(" * 20_000 + "1" + ")" * 20_000,
    "x = " + "-" * 20_000 + "1",
    "x = " + "not " * 10_000 + "1",
    "x = a" + ".b" * 20_000,
    "x = a" + "()" * 20_000,
    "x = " + "+".join(["1"] * 20_000),
    "if 1:\n pass\n" + "elif 1:\n pass\n" * 4_000,
    "x = " + "lambda:" * 9_000 + "1",
    "x = " + "[" * (MAX_DEPTH + 5) + "]" * (MAX_DEPTH + 5),
]


@pytest.mark.parametrize("text", NESTED, ids=range(len(NESTED)))
def test_deep_nesting_is_named_and_does_not_crash(text: str) -> None:
    assert code_of({**FILES, "mechanisms/a.py": text.encode()}) == "deeply_nested"


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_are_a_draft_or_refused(data: bytes) -> None:
    with contextlib.suppress(DraftError):
        draft_from_files({**FILES, "mechanisms/a.py": data})


@given(st.dictionaries(st.text(max_size=30), st.just(GOOD), max_size=4))
def test_any_paths_are_a_draft_or_refused(files: dict[str, bytes]) -> None:
    with pytest.raises(DraftError):
        draft_from_files(files)


@pytest.mark.parametrize(
    "text",
    [
        "import sandbox.mechanism as m\nclass A(m.Mechanism): pass",
        "from sandbox.mechanism import Mechanism as Base\nclass A(Base): pass",
        "from sandbox import mechanism\nif True:\n    class A(mechanism.Mechanism): pass",
    ],
)
def test_mechanism_classes(text: str) -> None:
    assert [c.name for c in mechanism_classes(parse("x", text.encode()))] == ["A"]


def test_from_disk(tmp_path: Path) -> None:
    single = tmp_path / "01 Hill-Climb.py"
    single.write_bytes(GOOD)
    assert load_draft(single).mechanism_path == "mechanisms/m_01_hill_climb.py"
    for path, data in FILES.items():
        (tmp_path / "draft" / path).parent.mkdir(parents=True)
        (tmp_path / "draft" / path).write_bytes(data)
    (tmp_path / "draft/tests/__pycache__").mkdir()
    (tmp_path / "draft/tests/__pycache__/x.pyc").write_bytes(b"x")
    assert load_draft(tmp_path / "draft").files == FILES


def test_links_and_special_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mechanisms").mkdir()
    (tmp_path / "mechanisms/a.py").symlink_to("/etc/passwd")
    with pytest.raises(DraftError) as caught:
        read_files(tmp_path)
    assert caught.value.code == "symlink"
    os.mkfifo(tmp_path / "pipe.py")
    with pytest.raises(DraftError) as caught:
        read_files(tmp_path / "pipe.py")  # a pipe that nobody writes to would hang
    assert caught.value.code == "path_not_allowed"


def test_sizes_on_disk(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(DraftError) as caught:
        read_files(tmp_path / "a.py")
    assert caught.value.code == "too_large"
    with pytest.raises(OSError, match="No such file"):
        read_files(tmp_path / "missing.py")


@given(st.text(max_size=80))
def test_names_are_always_valid(stem: str) -> None:
    draft_from_files({f"mechanisms/{name_from(stem)}.py": GOOD}, require_test=False)
