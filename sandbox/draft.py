"""What a draft is: the rules at the door, and which approved operator a draft varies.

A draft is one mechanism, `mechanisms/NAME.py`, and its unit test, `tests/test_NAME.py`. Whoever
takes a draft (the command line, the platform's door) calls the functions here; what they refuse
carries a stable code and says what to do. Nothing is executed, and nothing here says whether the
mechanism is any good: that is `sandbox.screen`.
"""

from __future__ import annotations

import ast
import keyword
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from sandbox.report import MAX_DRAFT_BYTES, MAX_FILE_BYTES, Draft, DraftError
from sandbox.syntax import is_literal, literal_kind, parse

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
        raise DraftError(
            "no_mechanism",
            f"{draft.mechanism_path} defines no subclass of sandbox.mechanism.Mechanism: write "
            "`class Name(Mechanism):`.",
        )
    if len(classes) > 1:
        named = ", ".join(f"{c.name} (line {c.lineno})" for c in classes)
        raise DraftError(
            "two_mechanisms",
            f"{draft.mechanism_path} defines {len(classes)} mechanisms: {named}. Exactly one is "
            "allowed; helpers are plain classes or functions.",
        )
    return tree


def mechanism_classes(tree: ast.Module) -> list[ast.ClassDef]:
    """Classes that derive from Mechanism, directly or by way of a class of the same file."""
    bases = {"Mechanism"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "sandbox.mechanism":
            bases |= {a.asname or a.name for a in node.names if a.name == "Mechanism"}
    found: list[ast.ClassDef] = []
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    classes.sort(key=lambda node: node.lineno)
    for node in classes:
        if any(_last_name(base) in bases for base in node.bases):
            bases.add(node.name)
            found.append(node)
    return found


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Subscript):
        return _last_name(node.value)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


# --- reading from disk -----------------------------------------------------------------------


def read_files(path: Path) -> dict[str, bytes]:
    """The files of a draft folder, or of one file, as `lay_out` takes them.

    OSError where the path can't be read; DraftError where what lies there can't be a draft.
    """
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
    if not stat.S_ISREG(path.stat().st_mode):
        raise DraftError("path_not_allowed", f"{shown} is not a plain file.")
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise DraftError("too_large", f"{shown} is over the limit of {MAX_FILE_BYTES} bytes.")
    return data


# --- approved operators with other parameters --------------------------------------------------


def recognise(source: bytes, library: Mapping[str, bytes]) -> str | None:
    """The operator of `library` (name -> source) that `source` re-parameterises, or None.

    Both have the same syntax tree but for the literal values of module-level UPPER_CASE
    constants, the module's docstring and the class attribute `name`. A value must stay of its
    kind: a number for a number, a text for a text. Anything unreadable is recognised as nothing.
    """
    try:
        shape = _shape(parse("draft", source))
    except DraftError:
        return None
    for name in sorted(library):
        if _shape(parse(name, library[name])) == shape:
            return name
    return None


def _shape(tree: ast.Module) -> str:
    body = tree.body
    if body and isinstance(body[0], ast.Expr) and _is_text(body[0].value):
        del body[0]
    for statement in body:
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and _is_parameter(statement):
            value = statement.value
            if value is not None and is_literal(value):
                statement.value = ast.Constant(value=f"<{literal_kind(value)}>", kind="shape")
    for cls in mechanism_classes(tree):
        for statement in cls.body:
            if _is_name_attribute(statement):
                statement.value = ast.Constant(value="<name>", kind="shape")  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is str


def _is_parameter(statement: ast.Assign | ast.AnnAssign) -> bool:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return len(targets) == 1 and (
        isinstance(targets[0], ast.Name) and bool(PARAMETER.fullmatch(targets[0].id))
    )


def _is_name_attribute(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.AnnAssign):
        target: ast.expr = statement.target
    elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
    else:
        return False
    return isinstance(target, ast.Name) and target.id == "name" and _is_text(statement.value)
