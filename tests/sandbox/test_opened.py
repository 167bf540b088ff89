"""Names that a request opens: read from sources without running them, and no others."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import lock, opened
from sandbox.checks import imports
from sandbox.lock import LockError, Pin
from sandbox.opened import OpenedError
from sandbox.report import Draft

_spec = importlib.util.spec_from_file_location(
    "wheel_maker", Path(__file__).with_name("wheel_maker.py")
)
assert _spec is not None
assert _spec.loader is not None
wheel_maker = importlib.util.module_from_spec(_spec)
sys.modules["wheel_maker"] = wheel_maker
_spec.loader.exec_module(wheel_maker)


def read(tmp_path: Path, text: str, module: str = "p", **files: str) -> tuple[str, ...]:
    more = {f"p/{name}.py": body for name, body in files.items()}
    wheel = wheel_maker.make_wheel(tmp_path, "p", "1.0", {"p/__init__.py": text, **more})
    return opened.names({module: ()}, [wheel])[module]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("A = 1\n_b = 2\ndef f(): pass\nclass C: pass\nimport os\nfrom re import X\n", "A C f"),
        ("__all__ = ['f', 'g']\n__all__ += ['h']\ndef f(): pass\nZ = 1\n", "f g h"),
        ("from .mod import thing, other as same\nfrom . import mod\n", "same thing"),
        ("raise SystemExit('it ran')\nA = 1\n", "A"),
    ],
)
def test_what_a_source_lists(tmp_path: Path, text: str, names: str) -> None:
    assert read(tmp_path, text, mod="thing = other = 1\n") == tuple(names.split())


@pytest.mark.parametrize(
    "text",
    [
        "__all__ = [n for n in dir()]\n",
        "from .mod import *\n",
        "import os\n",
        "def broken(:\n",
        "(" * 5000 + "1" + ")" * 5000,
    ],
)
def test_what_nobody_can_read_has_to_be_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(OpenedError):
        read(tmp_path, text, mod="")
    wheel = next(tmp_path.glob("*.whl"))
    assert opened.names({"p": ("Wanted",)}, [wheel]) == {"p": ("Wanted",)}


def test_a_module_of_another_package_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(OpenedError, match="in none of the wheels"):
        read(tmp_path, "A = 1\n", module="q")


@given(st.text(max_size=200))
def test_any_text_is_modules_or_is_refused(text: str) -> None:
    try:
        found = opened.parse(text)
    except OpenedError:
        return
    for module, names in found.items():
        assert all(part.isidentifier() and part[0] != "_" for part in module.split("."))
        assert all(name.isidentifier() and name[0] != "_" for name in names)


@given(
    st.binary(max_size=300)
    | st.recursive(st.none() | st.text(), st.lists).map(repr).map(str.encode)
)
def test_any_bytes_are_a_lock_or_are_refused(data: bytes) -> None:
    try:
        found = lock.parse(data)
    except LockError:
        return
    assert lock.parse(found.to_bytes()) == found


def draft(text: str) -> Draft:
    path = "mechanisms/m.py"
    return Draft(mechanism_path=path, files={path: text.encode()})


def test_the_allow_list_opens_exactly_what_the_lock_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESCAPEMENT_VAR", str(tmp_path))
    wanted = draft("from tiny.search import find\n")
    more = draft("from tiny.search import find, hidden\n")
    beside = draft("from tiny.other import find\n")

    def rules(one: Draft) -> set[str]:
        return {f.rule for f in imports.check(one).findings}

    assert all(rules(one) for one in (wanted, more, beside)), "closed before"
    pin = Pin(name="tiny", version="1.0", hashes=("ab" * 32,))
    lock.keep(lock.seed().extended([pin], {"tiny.search": ["find"]}))
    assert not rules(wanted)
    assert rules(more)
    assert rules(beside)


def test_names_can_be_added_to_a_module_that_the_table_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESCAPEMENT_VAR", str(tmp_path))
    wanted = draft("from scipy.stats import poisson, norm\n")
    assert imports.check(wanted).findings
    lock.keep(lock.seed().extended([], {"scipy.stats": ["poisson"]}))
    assert not imports.check(wanted).findings


def test_the_check_of_packages_follows_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sandbox.checks import dependencies
    from sandbox.vulnerabilities import Scan

    monkeypatch.setenv("ESCAPEMENT_VAR", str(tmp_path))

    def check(text: str) -> Any:
        return dependencies.check(draft(text), scan=lambda: Scan(lock=("a==1",)))

    done = check("import tiny\nimport skimage\nimport pytest\n")
    assert {f.rule for f in done.findings if f.severity == "error"} == {
        "dependency-missing",
        "dependency-forbidden",
    }
    assert done.detail["missing"] == ["scikit-image", "tiny"]
    pin = Pin(name="tiny", version="1.0", hashes=("ab" * 32,))
    lock.keep(lock.seed().extended([pin], {"tiny": ["find"]}))
    assert check("import tiny\n").detail["missing"] == []
    lock.keep(lock.seed().extended([pin], {}))  # it is there for another package alone
    rules = {f.rule for f in check("import tiny\n").findings if f.severity == "error"}
    assert rules == {"dependency-forbidden"}
