"""Which names of a package's modules a request would open to mechanisms, read from its wheels.

A module is named in the request, and its public names are those that its source lists (`__all__`)
or defines; where nobody can read them (compiled, computed) the request has to name them itself.
Sources are parsed and never run: whether the names are there is tried in the sandbox, once the
image is built. What a request does not name stays closed.
"""

from __future__ import annotations

import ast
import re
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandbox.syntax import tree_of

MAX_SOURCE_BYTES = 2 * 1024 * 1024
MAX_MODULES = 40
MAX_NAMES = 500
_MODULE = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*){0,7}", re.ASCII)
_NAME = re.compile(r"[A-Za-z]\w{0,99}", re.ASCII)
OURS = frozenset({"sandbox", "mechanisms", "tests"})


class OpenedError(ValueError):
    """A module or a name that can't be opened; the message says what to do."""


def parse(text: str) -> dict[str, tuple[str, ...]]:
    """`module` or `module: name, name` on each line; no names: all that the module lists."""
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        module, colon, rest = (part.strip() for part in line.partition(":"))
        if not module and not rest:
            continue
        names = tuple(sorted({one.strip() for one in rest.split(",") if one.strip()}))
        if not _MODULE.fullmatch(module) or (colon and not names):
            raise OpenedError(f"{line.strip()[:80]!r}: write `module`, or `module: name, name`.")
        if bad := next((n for n in names if not _NAME.fullmatch(n)), ""):
            raise OpenedError(f"{bad[:80]!r} is no public name: it begins with a letter.")
        if module in found:
            raise OpenedError(f"{module} is named twice: write it on one line.")
        if module.partition(".")[0] in sys.stdlib_module_names | OURS:
            raise OpenedError(f"{module} belongs to no package: it can't be asked for.")
        found[module] = names
    if len(found) > MAX_MODULES or any(len(n) > MAX_NAMES for n in found.values()):
        raise OpenedError(f"At most {MAX_MODULES} modules, and {MAX_NAMES} names of each.")
    return found


def names(
    wanted: Mapping[str, Sequence[str]], wheels: Sequence[Path]
) -> dict[str, tuple[str, ...]]:
    """What would be opened, name by name. Raises OpenedError."""
    return {module: _names(module, tuple(listed), wheels) for module, listed in wanted.items()}


def _names(module: str, listed: tuple[str, ...], wheels: Sequence[Path]) -> tuple[str, ...]:
    stem = module.replace(".", "/")
    for path in wheels:
        with zipfile.ZipFile(path) as archive:
            there = set(archive.namelist())
            source = next((n for n in (f"{stem}/__init__.py", f"{stem}.py") if n in there), "")
            compiled = any(n.startswith(f"{stem}.") and n.endswith(".so") for n in there)
            if not source and not compiled:
                continue
            if listed:
                return tuple(sorted(listed))
            if source:
                with archive.open(source) as file:
                    data = file.read(MAX_SOURCE_BYTES + 1)
                return _read(module, data, {n.removesuffix(".py") for n in there})
            raise OpenedError(f"{module} is compiled: name what of it is wanted.")
    raise OpenedError(f"{module} is in none of the wheels: name a module of the package.")


def _read(module: str, data: bytes, files: set[str]) -> tuple[str, ...]:
    help_text = f"write `{module}: name, name` to name what of it is wanted."
    if len(data) > MAX_SOURCE_BYTES:
        raise OpenedError(f"{module} is too large to be read: {help_text}")
    try:
        tree = tree_of(data)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise OpenedError(f"{module} can't be parsed ({error}): {help_text}") from None
    listed = _listed(tree)
    if listed is None:
        stem = module.replace(".", "/")
        listed = [n for node in tree.body for n in _defined(node, stem, files)]
    found = tuple(sorted({n for n in listed if _NAME.fullmatch(n)}))
    if not found or len(found) > MAX_NAMES:
        raise OpenedError(f"{module} says no names, or over {MAX_NAMES}: {help_text}")
    return found


def _listed(tree: ast.Module) -> list[str] | None:
    """`__all__`, where it is written out; None where there is none, or it is computed."""
    found: list[str] | None = None
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign | ast.AugAssign):
            targets = [node.target]
        if not any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
            continue
        value = node.value  # type: ignore[attr-defined]
        if not isinstance(value, ast.List | ast.Tuple) or not all(
            isinstance(e, ast.Constant) and isinstance(e.value, str) for e in value.elts
        ):
            raise OpenedError("__all__ is computed: name what of the module is wanted.")
        words = [str(e.value) for e in value.elts if isinstance(e, ast.Constant)]
        found = (found or []) + words if isinstance(node, ast.AugAssign) else words
    return found


def _defined(node: ast.stmt, stem: str, files: set[str]) -> list[str]:
    """Names that a statement gives to the module, its own modules left out."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [t.id for t in node.targets if isinstance(t, ast.Name)]
    if isinstance(node, ast.ImportFrom) and node.level == 1:
        inside = f"{stem}/{(node.module or '').replace('.', '/')}".rstrip("/")
        if any(alias.name == "*" for alias in node.names):
            raise OpenedError(f"{stem} passes on all of {node.module}: name what is wanted.")
        places = ((a.asname or a.name, f"{inside}/{a.name}") for a in node.names)
        return [n for n, at in places if at not in files and f"{at}/__init__" not in files]
    return []


def probe(opened: Mapping[str, Sequence[str]]) -> bytes:
    """A mechanism of our own that imports them in the sandbox and says what is not there.

    Its state is `{"missing": [...], "modules": [...]}`: names that are absent, and names that are
    modules themselves, which would open more than was asked for.
    """
    table = {module: list(names) for module, names in opened.items()}
    return f'''"""Tries the modules that a request opens."""

import importlib
from types import ModuleType

from sandbox.mechanism import Mechanism

OPENED = {table!r}


class Probe(Mechanism):
    name = "draft"

    def state(self):
        missing, modules = [], []
        for module, names in OPENED.items():
            real = importlib.import_module(module)
            for name in names:
                if not hasattr(real, name):
                    missing.append(module + "." + name)
                elif isinstance(getattr(real, name), ModuleType):
                    modules.append(module + "." + name)
        return {{"missing": missing[:50], "modules": modules[:50]}}
'''.encode()
