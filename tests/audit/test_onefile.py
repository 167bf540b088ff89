"""The verifier of a bundle is its modules, joined: same bytes each time, same answers."""

from __future__ import annotations

import ast
import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from audit import onefile, verifier

from tests.audit.stories import FIRST, LINUS, LIVE, Log, plain_log, walk


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The one file, as a module that knows nothing of `audit`."""
    path = tmp_path_factory.mktemp("joined") / "verify_joined.py"
    path.write_text(onefile.source())
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:  # dataclasses look their module up
        patch.setitem(sys.modules, path.stem, module)
        spec.loader.exec_module(module)
        yield module


def test_the_same_modules_give_the_same_bytes_and_need_nothing_of_ours() -> None:
    text = onefile.source()
    assert text == onefile.source()
    assert "import audit" not in text
    assert "from audit" not in text
    compile(text, "verify.py", "exec", dont_inherit=True)
    for module in onefile.ORDER:  # nothing of a module is lost but its imports
        source = (onefile.PACKAGE / f"{module}.py").read_text()
        for node in ast.parse(source).body[1:]:
            if not isinstance(node, ast.Import | ast.ImportFrom):
                assert (ast.get_source_segment(source, node) or "lost") in text


def unchanged(log: Log) -> None:
    pass


def edited(log: Log) -> None:
    text, stored = log.rows[4]
    log.rows[4] = (text.replace("2026", "2027"), stored)


def removed(log: Log) -> None:
    del log.rows[3:5]


def cut(log: Log) -> None:
    del log.rows[-2:]


def swapped(log: Log) -> None:
    log.rows[2], log.rows[6] = log.rows[6], log.rows[2]


def forged(log: Log) -> None:
    body = {**log.body(3), "reason": "another"}
    log.rows[2] = log.row(body)
    log.rechain(3)


def headless(log: Log) -> None:
    log.head = None


def unsigned(log: Log) -> None:
    log.head = {**(log.head or {}), "signature": "00" * 64}
    log.notes = ["nonsense", *log.notes[1:]]


def four_eyes() -> Log:
    acts = walk()
    acts[FIRST]["actor"] = LINUS
    acts[LIVE]["data"]["digest_attested"] = "0" * 64
    return Log(acts)


@pytest.mark.parametrize("make", [lambda: Log(walk()), four_eyes, lambda: plain_log(9)])
@pytest.mark.parametrize(
    "change", [unchanged, edited, removed, cut, swapped, forged, headless, unsigned]
)
def test_it_says_what_the_modules_say(
    joined: ModuleType, make: Callable[[], Log], change: Callable[[Log], None]
) -> None:
    log = make()
    change(log)
    given: dict[str, Any] = {"entries": log.rows, "head": log.head, "notes": log.notes}
    ours, theirs = (one.verify(**given, key=log.public) for one in (verifier, joined))
    assert joined.report(theirs) == verifier.report(ours)
    assert joined.as_json(theirs) == verifier.as_json(ours)
    assert theirs.facts == ours.facts
    assert (change is unchanged and make is not four_eyes) == theirs.ok
    rows = [{"of": "proposal:1", "state": "live"}, {"of": "proposal:2"}]
    compared = (one.compare_rows(ours.facts, rows, kinds=["review"]) for one in (verifier, joined))
    assert len({tuple(map(str, problems)) for problems in compared}) == 1


def added(name: str, text: str) -> Callable[[Path], None]:
    def change(package: Path) -> None:
        path = package / f"{name}.py"
        path.write_text((path.read_text() if path.exists() else "") + text)

    return change


def before(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(package: Path) -> None:
        path = package / f"{name}.py"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (added("new", '"""New."""\nimport json\n'), "every module stands in ORDER"),
        (lambda p: (p / "chain.py").unlink(), "every module stands in ORDER"),
        (added("bundle", "\nimport json\n"), "its imports do not come first"),
        (added("rules", "\ndef main() -> None: ...\n"), "is rules too: rename one"),
        (added("rules", "\ndef sum() -> None: ...\n"), "a builtin too"),
        (added("rules", "\njson = 3\n"), "json of rules is an import too"),
        (added("rules", "\nprint(1)\n"), "defines no name"),
        (before("rules", "from typing", "import httpx\nfrom typing"), "the standard library alone"),
        (before("rules", "from typing", "import json as j\nfrom typing"), "by another name"),
        (before("rules", "from audit", "from audit import head\nfrom audit"), "imports audit"),
        (before("chain", "canonical,", "canonical, main,"), "stands not before it"),
    ],
)
def test_what_can_not_be_joined_truthfully_is_refused(
    tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    package = tmp_path / "verifier"
    shutil.copytree(onefile.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    change(package)
    with pytest.raises(onefile.NotJoinable, match=words):
        onefile.source(package)
