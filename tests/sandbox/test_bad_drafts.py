"""Drafts that are no drafts, by `python -m sandbox screen`: each ends in a named state at once.

None of them needs an engine: they are refused before anything would be executed.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandbox.__main__ import main

GOOD = "from sandbox.mechanism import Mechanism\n\n\nclass A(Mechanism):\n    pass\n"
TEST = "def test_a():\n    assert True\n"
MEGABYTE = 1 << 20
Make = Callable[[Path], Any]


def text(content: str | bytes, name: str = "a.py") -> Make:
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    return lambda folder: (folder / name).write_bytes(data)


def tree(**files: str) -> Make:
    """A draft folder: `mechanisms__a` is mechanisms/a.py."""

    def make(folder: Path) -> None:
        for name, content in files.items():
            path = folder / (name.replace("__", "/", 1) + ".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)

    return make


def many(folder: Path) -> None:
    tree(mechanisms__a=GOOD, tests__test_a=TEST)(folder)
    for number in range(10_000):
        (folder / f"{number}.txt").touch()


def deep(folder: Path) -> None:
    for _ in range(200):
        folder = folder / "x"
        folder.mkdir()


def sparse(folder: Path) -> None:
    with (folder / "a.py").open("wb") as file:
        file.truncate(100 * 1024 * MEGABYTE)


def linked(name: str, to: str) -> Make:
    def make(folder: Path) -> None:
        tree(mechanisms__a=GOOD, tests__test_a=TEST)(folder)
        (folder / name).unlink()
        (folder / name).symlink_to(to)

    return make


def piped(folder: Path) -> None:
    tree(mechanisms__a=GOOD, tests__test_a=TEST)(folder)
    (folder / "mechanisms/a.py").unlink()
    os.mkfifo(folder / "mechanisms/a.py")


def foldered(folder: Path) -> None:
    (folder / "mechanisms/a.py").mkdir(parents=True)
    (folder / "mechanisms/a.py/c.py").write_text(GOOD)


def listening(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "a.py"))


SINGLE: dict[str, tuple[str, Make]] = {
    "empty file": ("empty", text("")),
    "blank file": ("empty", text(" \n\t\n")),
    "ten megabytes": ("too_large", text(b"#" * (10 * MEGABYTE))),
    "a hundred gigabytes, sparse": ("too_large", sparse),
    "UTF-16": ("not_utf8", text(GOOD.encode("utf-16"))),
    "Latin 1": ("not_utf8", text(b"# caf\xe9\n" + GOOD.encode())),
    "lone surrogate": ("not_utf8", text(GOOD + "# \ud800")),
    "rot13": ("not_utf8", text("# coding: rot13\n" + GOOD)),
    "utf-7 on line two": ("not_utf8", text("#!x\n# vim: set fileencoding=utf-7 :\n" + GOOD)),
    "binary": ("not_utf8", text(b"\x7fELF\x02\x01\x01" + bytes(range(256)))),
    "compiled": ("not_utf8", text(b"\xa7\r\r\n" + bytes(12) + b"\xe3\x00\x00")),
    "NUL in text": ("syntax_error", text(GOOD + "x = '\x00'\n")),
    "picture": ("not_utf8", text(b"\x89PNG\r\n\x1a\n" + bytes(64))),
    "nested parentheses": ("deeply_nested", text(GOOD + "x = " + "(" * 20_000 + ")" * 20_000)),
    "nested blocks": (
        "deeply_nested",
        text(GOOD + "".join(" " * i + "if x:\n" for i in range(150)) + " " * 150 + "pass\n"),
    ),
    "nested calls": ("deeply_nested", text(GOOD + "x = a" + "(1)" * 500 + "\n")),
    "not Python": ("syntax_error", text("Here is the mechanism:\n```python\n" + GOOD + "```\n")),
    "JSON": ("no_mechanism", text('{"changes": {"LR": 1}}')),
    "prose": ("syntax_error", text("I would lower the learning rate.\n")),
    "tabs and blanks mixed": (
        "syntax_error",
        text(GOOD + "def f():\n        x = 1\n\ty = 2\n"),
    ),
    "tabs that hide code": ("hidden-off-screen", text(GOOD + "x = 1" + "\t" * 40 + "; y = 2\n")),
    "blanks that hide code": ("hidden-off-screen", text(GOOD + "x = 1" + " " * 90 + "; y = 2\n")),
    "lines that hide code": ("hidden-off-screen", text(GOOD + "\n" * 300 + "y = 2\n")),
    "form feeds": ("hidden-character", text(GOOD + "\x0cy = 2\n")),
    "carriage returns": ("hidden-character", text(GOOD + "# x\ry = 2\n")),
    "escape codes": ("hidden-character", text(GOOD + "# \x1b[2J\x1b[1A\n")),
    "turned text": ("bidirectional-character", text(GOOD + "# \u202e\n")),
    "byte order mark": ("hidden-character", text("\ufeff" + GOOD)),
    "pipe": ("path_not_allowed", lambda folder: os.mkfifo(folder / "a.py")),
    "socket": ("path_not_allowed", listening),
    "link": ("symlink", lambda folder: (folder / "a.py").symlink_to("/etc/passwd")),
    "link to a device": ("symlink", lambda folder: (folder / "a.py").symlink_to("/dev/zero")),
    "dangling link": ("symlink", lambda folder: (folder / "a.py").symlink_to("/nowhere")),
    "link to itself": ("symlink", lambda folder: (folder / "a.py").symlink_to("a.py")),
    "empty folder in its place": ("empty", lambda folder: (folder / "a.py").mkdir()),
}

FOLDERS: dict[str, tuple[str, Make]] = {
    "empty": ("empty", lambda _: None),
    "without a test": ("no_test", tree(mechanisms__a=GOOD)),
    "only a test": ("no_mechanism", tree(tests__test_a=TEST)),
    "another one's test": ("no_test", tree(mechanisms__a=GOOD, tests__test_b=TEST)),
    "two mechanisms": ("two_mechanisms", tree(mechanisms__a=GOOD, mechanisms__b=GOOD)),
    "three files": (
        "too_many_files",
        tree(mechanisms__a=GOOD, mechanisms__b=GOOD, tests__test_a=TEST),
    ),
    "a configuration of pytest": (
        "path_not_allowed",
        tree(mechanisms__a=GOOD, tests__conftest=TEST),
    ),
    "capitals": ("path_not_allowed", tree(mechanisms__A=GOOD, tests__test_A=TEST)),
    "letters that look alike": (
        "path_not_allowed",
        tree(**{"mechanisms__t\u0430bu": GOOD, "tests__test_t\u0430bu": TEST}),
    ),
    "a word of Python": ("path_not_allowed", tree(mechanisms__None=GOOD, tests__test_None=TEST)),
    "ten thousand files": ("too_many_files", many),
    "folders in folders": ("too_many_files", deep),
    "a link for the mechanism": ("symlink", linked("mechanisms/a.py", "/etc/passwd")),
    "a link for the test": ("symlink", linked("tests/test_a.py", "../mechanisms/a.py")),
    "a pipe for the mechanism": ("path_not_allowed", piped),
    "a folder for the mechanism": ("path_not_allowed", foldered),
    "a hidden file": (
        "too_many_files",
        lambda folder: (
            tree(mechanisms__a=GOOD, tests__test_a=TEST)(folder)
            or (folder / ".git").write_text("gitdir: /")
        ),
    ),
    "a test that is not UTF-8": (
        "not_utf8",
        lambda folder: (
            tree(mechanisms__a=GOOD, tests__test_a=TEST)(folder)
            or (folder / "tests/test_a.py").write_bytes(b"\xff")
        ),
    ),
    "a test of ten megabytes": (
        "too_large",
        lambda folder: (
            tree(mechanisms__a=GOOD, tests__test_a=TEST)(folder)
            or (folder / "tests/test_a.py").write_bytes(b"#" * (10 * MEGABYTE))
        ),
    ),
}


@pytest.fixture(autouse=True)
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")


def screened(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = main(["--quiet", "screen", str(path), "--json"])
    return code, json.loads(capsys.readouterr().out)


def judge(code: int, report: dict[str, Any], rule: str) -> None:
    assert (code, report["outcome"]) == (1, "failed")
    found = [f for c in report["checks"] for f in c["findings"] if f["severity"] == "error"]
    assert rule in {f["rule"] for f in found}, found
    assert all(f["message"] and f["why"] for f in found)
    states = {c["name"]: c["outcome"] for c in report["checks"]}
    assert {states[n] for n in ("import", "contract", "unit_tests", "replay")} == {"skipped"}


@pytest.mark.parametrize("kind", SINGLE)
def test_a_single_file(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule, make = SINGLE[kind]
    make(tmp_path)
    judge(*screened(tmp_path / "a.py", capsys), rule)


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule, make = FOLDERS[kind]
    make(tmp_path)
    judge(*screened(tmp_path, capsys), rule)


def test_a_link_to_a_draft_is_not_followed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "real").mkdir()
    tree(mechanisms__a=GOOD, tests__test_a=TEST)(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    judge(*screened(tmp_path / "link", capsys), "symlink")


@pytest.mark.parametrize("path", ["/nowhere/at/all.py", "/dev/null", "/dev/zero", "/proc/self/mem"])
def test_paths_that_are_no_drafts(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--quiet", "screen", path])
    out = capsys.readouterr()
    assert code in (1, 2)
    assert "Traceback" not in out.out + out.err
    assert ("path_not_allowed" in out.out) or ("can't be read" in out.err.replace("\n", " "))
