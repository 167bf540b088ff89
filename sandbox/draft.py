"""What a draft is: the rules at the door.

A draft is one mechanism, `mechanisms/NAME.py`, and its unit test, `tests/test_NAME.py`. Whoever
takes a draft (the command line, the platform's door) calls the functions here; what they refuse
carries a stable code and says what to do. Nothing is executed, and nothing here says whether the
mechanism is any good: that is `sandbox.screen`.
"""

from __future__ import annotations

import ast
import errno
import keyword
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from sandbox.report import MAX_DRAFT_BYTES, MAX_FILE_BYTES, Draft, DraftError
from sandbox.syntax import parse

NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")
MECHANISM_PATH = re.compile(r"mechanisms/([a-z][a-z0-9_]{0,59})\.py")
TEST_PATH = re.compile(r"tests/test_([a-z][a-z0-9_]{0,59})\.py")
MAX_FILES = 2
MAX_ENTRIES = 64
PARAMETER = re.compile(r"[A-Z][A-Z0-9_]*")


def draft_from_files(files: Mapping[str, bytes], *, require_test: bool = True) -> Draft:
    """The draft that `files` (repository path -> bytes) make up, or DraftError with the reason."""
    draft = lay_out(files, require_test=require_test)
    check_content(draft)
    return draft


def lay_out(files: Mapping[str, bytes], *, require_test: bool = True) -> Draft:
    """Paths, counts and sizes alone: a draft whose content nobody has looked at yet."""
    if not files:
        raise DraftError("empty", "There is no file: a draft is mechanisms/NAME.py and its test.")
    if len(files) > MAX_FILES:
        raise DraftError(
            "too_many_files",
            f"There are {len(files)} files: a draft is one mechanism and its test, nothing else.",
        )
    for path in files:
        if not MECHANISM_PATH.fullmatch(path) and not TEST_PATH.fullmatch(path):
            raise DraftError(
                "path_not_allowed",
                f"{path[:200]!r} is not allowed: a draft has mechanisms/NAME.py and "
                "tests/test_NAME.py, NAME in lower case letters, digits and underscores.",
            )
    mechanisms = [path for path in files if MECHANISM_PATH.fullmatch(path)]
    if not mechanisms:
        raise DraftError("no_mechanism", "There is no mechanisms/NAME.py.")
    if len(mechanisms) > 1:
        raise DraftError("two_mechanisms", f"One draft, one mechanism: found {mechanisms}.")
    draft = Draft(mechanism_path=mechanisms[0], files=dict(files))
    if keyword.iskeyword(draft.name):
        raise DraftError("path_not_allowed", f"{draft.name!r} is a word of Python: rename it.")
    if require_test and list(draft.tests) != [f"tests/test_{draft.name}.py"]:
        raise DraftError("no_test", f"There is no tests/test_{draft.name}.py: add its unit test.")
    if draft.tests and list(draft.tests) != [f"tests/test_{draft.name}.py"]:
        raise DraftError("path_not_allowed", f"The test must be tests/test_{draft.name}.py.")
    _limit_sizes(draft)
    return draft


def _limit_sizes(draft: Draft) -> None:
    for path, data in draft.files.items():
        if len(data) > MAX_FILE_BYTES:
            raise DraftError(
                "too_large", f"{path} has {len(data)} bytes; the limit is {MAX_FILE_BYTES}."
            )
        if not data.strip():
            raise DraftError("empty", f"{path} is empty.")
    if (total := sum(map(len, draft.files.values()))) > MAX_DRAFT_BYTES:
        raise DraftError("too_large", f"The draft has {total} bytes; at most {MAX_DRAFT_BYTES}.")


def check_content(draft: Draft) -> ast.Module:
    """Every file is Python of bounded depth, the mechanism's file has exactly one mechanism."""
    tree = parse(draft.mechanism_path, draft.source)
    for path, data in draft.tests.items():
        parse(path, data)
    classes = mechanism_classes(tree)
    if not classes:
        raise DraftError("no_mechanism", f"{draft.mechanism_path} {_instead(tree)}")
    if len(classes) > 1:
        named = ", ".join(f"{c.name} (line {c.lineno})" for c in classes)
        raise DraftError(
            "two_mechanisms",
            f"{draft.mechanism_path} defines {len(classes)} mechanisms: {named}. Exactly one is "
            "allowed; helpers are plain classes or functions.",
        )
    return tree


def mechanism_classes(tree: ast.Module) -> list[ast.ClassDef]:
    """Classes that derive from the imported Mechanism, directly or by way of one of the file."""
    bases = _imported_bases(tree)
    found: list[ast.ClassDef] = []
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    classes.sort(key=lambda node: node.lineno)
    for node in classes:
        if any(_dotted(base) in bases for base in node.bases):
            bases.add(node.name)
            found.append(node)
    return found


def _imported_bases(tree: ast.Module) -> set[str]:
    """How the file may write sandbox.mechanism.Mechanism."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                name = alias.asname or alias.name
                if node.module == "sandbox.mechanism" and alias.name in ("Mechanism", "*"):
                    found.add("Mechanism" if alias.name == "*" else name)
                elif node.module == "sandbox" and alias.name == "mechanism":
                    found.add(f"{name}.Mechanism")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == "sandbox.mechanism":
                    found.add(f"{alias.asname or alias.name}.Mechanism")
    return found


def _dotted(node: ast.expr) -> str:
    """`a.b.C` as text; without what is in brackets; "" for anything else."""
    if isinstance(node, ast.Subscript):
        return _dotted(node.value)
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _instead(tree: ast.Module) -> str:
    """What a file without a mechanism has instead, and what to write."""
    parts = list(ast.walk(tree))
    classes = [n for n in parts if isinstance(n, ast.ClassDef)]
    functions = [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    own = next((c for c in classes if c.name == "Mechanism"), None)
    taken = next(
        (
            n
            for n in parts
            if isinstance(n, ast.ImportFrom)
            and n.module != "sandbox.mechanism"
            and any(a.name == "Mechanism" for a in n.names)
        ),
        None,
    )
    base = next((c for c in classes if "Mechanism" in map(_dotted, c.bases)), None)
    head = "defines no subclass of sandbox.mechanism.Mechanism: "
    real = "`from sandbox.mechanism import Candidate, Mechanism`"
    if own is not None:
        return f"{head}line {own.lineno} makes a class Mechanism of its own. Write {real} instead."
    if taken is not None:
        return f"{head}line {taken.lineno} takes Mechanism from elsewhere. Write {real} instead."
    if base is not None:
        return f"{head}line {base.lineno} derives from Mechanism, which is not imported: {real}."
    there = ""
    if classes or functions:
        kind = "classes" if classes else "functions"
        names = [n.name[:60] for n in (classes or functions)[:4]]
        there = f"nothing would ever call its {kind} ({', '.join(names)}). "
    return (
        f"{head}{there}Write {real} and `class Name(Mechanism):` with `def propose(self, view, "
        "count)`, which returns a list of Candidates, or `def accept(self, trial, view)`, which "
        "returns a bool."
    )


# --- reading from disk -----------------------------------------------------------------------


def read_files(path: Path) -> dict[str, bytes]:
    """The files of a draft folder, or of one file, as `lay_out` takes them.

    OSError where the path can't be read; DraftError where what lies there can't be a draft.
    """
    if path.is_symlink():
        raise DraftError("symlink", f"{path.name} is a link: give the file or folder itself.")
    if path.is_dir():
        return _read_folder(path)
    return {f"mechanisms/{name_from(path.stem)}.py": _read_file(path, path.name)}


def load_draft(path: Path) -> Draft:
    """The draft in a folder, or a single file as a draft without a test."""
    return draft_from_files(read_files(path), require_test=path.is_dir())


def name_from(stem: str) -> str:
    """A mechanism's name from any file name: `01 Hill-Climb` is `m_01_hill_climb`."""
    name = re.sub(r"[^a-z0-9_]+", "_", stem.lower()).strip("_")[:50]
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        name = f"m_{name}"
    return name


def _read_folder(root: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    seen = 0
    for folder, folders, names in os.walk(root, followlinks=False):
        folders[:] = sorted(f for f in folders if f != "__pycache__")
        for name in [*folders, *sorted(names)]:
            path = Path(folder, name)
            relative = path.relative_to(root).as_posix()
            seen += 1
            if seen > MAX_ENTRIES:
                raise DraftError(
                    "too_many_files", f"{root} holds over {MAX_ENTRIES} entries: this is no draft."
                )
            if path.is_symlink():
                raise DraftError("symlink", f"{relative} is a link: put the file itself there.")
            if name in names:
                files[relative] = _read_file(path, relative)
    return files


def _read_file(path: Path, shown: str) -> bytes:
    # No link is followed and no pipe waited for, whatever stands there by now.
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise DraftError("symlink", f"{shown} is a link: put the file itself there.") from None
        if error.errno in (errno.ENXIO, errno.ENODEV):  # a socket, a device without a driver
            raise _not_plain(shown) from None
        raise
    with os.fdopen(number, "rb") as file:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise _not_plain(shown)
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise DraftError("too_large", f"{shown} is over the limit of {MAX_FILE_BYTES} bytes.")
    return data


def _not_plain(shown: str) -> DraftError:
    return DraftError("path_not_allowed", f"{shown} is not a plain file.")
