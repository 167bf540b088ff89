"""What can be seen of a file without knowing what its names stand for: the second pass.

Special names that are defined or spelled in a text, private names of other objects, imports in a
class, clocks that numpy reads from a text, generators without a seed. Nothing is executed; the
rules about modules and builtins are in `sandbox.checks.walk`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from sandbox.checks.notes import WHY_CHANCE, WHY_EVASION, WHY_IMPORT, Notes
from sandbox.checks.reach import (
    CHANCE,
    CLOCK,
    DEFINABLE,
    HARMLESS_DUNDERS,
    HARMLESS_NAMES,
    INTERNALS,
    MODULES,
    PRIVATE_OF_LIBRARIES,
)

DUNDER = re.compile(r"__\w+__")
FORMAT_REACH = re.compile(r"\{[^{}]*(?:\.|\[)\s*__\w+__")
CLOCK_TEXT = re.compile(r"[<>=|]?(?:datetime64|M8)(?:\[\w+\])?")
NOT_ATTRIBUTES = {name: MODULES[name] for name in ("os", "sys", "builtins", "importlib", "posix")}
NOT_ATTRIBUTES |= {"subprocess": MODULES["subprocess"], "dump": MODULES["io"]}
TEXTS = HARMLESS_DUNDERS | HARMLESS_NAMES | {"__main__"}


class Spelled(ast.NodeVisitor):
    """One pass over one file; `own` are the names that the draft itself defines."""

    def __init__(self, notes: Notes, own: frozenset[str]) -> None:
        self._notes = notes
        self._own = own
        self._imported: set[str] = set()

    def visit_Module(self, node: ast.Module) -> None:
        for part in ast.walk(node):
            if isinstance(part, ast.alias):
                self._imported.add((part.asname or part.name).split(".")[0])
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for inner in _of_class(node):
            if isinstance(inner, (ast.Import, ast.ImportFrom)):
                self._notes.say(
                    inner,
                    "import-in-class",
                    f"imports inside of the class {node.name}: import at the top of the file",
                    WHY_EVASION,
                )
        self._defines(node, node.name)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._defines(node, node.name)
        self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - as ast names it

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._defines(node, node.id)

    def visit_arg(self, node: ast.arg) -> None:
        self._defines(node, node.arg)
        self.generic_visit(node)

    def visit_alias(self, node: ast.alias) -> None:
        if node.asname:
            self._defines(node, node.asname)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg:
            self._defines(node, node.arg)
        self.generic_visit(node)

    def _defines(self, node: ast.AST, name: str) -> None:
        if DUNDER.fullmatch(name) and name not in DEFINABLE | HARMLESS_NAMES:
            self._notes.say(
                node,
                "dunder-not-allowed",
                f"defines {name}: a mechanism may not reach {INTERNALS}",
                WHY_EVASION,
            )

    def visit_Attribute(self, node: ast.Attribute) -> None:
        name = node.attr
        if name in NOT_ATTRIBUTES and name not in self._own:
            self._notes.say(
                node,
                "attribute-not-allowed",
                f"uses .{name} of a value: a mechanism may not reach {NOT_ATTRIBUTES[name]}",
                WHY_EVASION,
            )
        elif self._is_foreign(node):
            self._notes.say(
                node,
                "private-name",
                f"uses .{name}, a private name of something that the draft did not define",
                WHY_EVASION,
            )
        self.generic_visit(node)

    def _is_foreign(self, node: ast.Attribute) -> bool:
        name = node.attr
        if not name.startswith("_") or DUNDER.fullmatch(name) or name in self._own:
            return False
        if isinstance(node.value, ast.Name) and node.value.id in self._imported:
            return False  # a module's name, or a class's: the other pass knows which are allowed
        return name not in PRIVATE_OF_LIBRARIES

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        if isinstance(function, ast.Attribute) and not node.args:
            given = {keyword.arg for keyword in node.keywords}
            bare = function.attr == "seed" and not node.keywords
            if bare or (function.attr == "rvs" and "random_state" not in given):
                self._notes.say(
                    node,
                    "unseeded-random",
                    f"calls .{function.attr}() without a seed: {CHANCE}. Use view.random",
                    WHY_CHANCE,
                )
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if not isinstance(node.value, str):
            return
        if FORMAT_REACH.search(node.value):
            self._notes.say(
                node,
                "format-reach",
                "has a format text that reads dunder attributes: a mechanism may not reach "
                f"{INTERNALS}",
                WHY_EVASION,
            )
        elif DUNDER.fullmatch(node.value) and node.value not in TEXTS:
            self._notes.say(
                node,
                "dunder-not-allowed",
                f"spells {node.value} in a text: a mechanism may not reach {INTERNALS}",
                WHY_EVASION,
            )
        elif CLOCK_TEXT.fullmatch(node.value):
            self._notes.say(
                node,
                "clock-by-text",
                f"names numpy's type {node.value!r}, which reads the clock: a mechanism may not "
                f"reach {CLOCK}",
                WHY_IMPORT,
            )


def _of_class(node: ast.ClassDef) -> Iterator[ast.AST]:
    """What runs in the class's own scope."""
    stack: list[ast.AST] = list(node.body)
    while stack:
        inner = stack.pop()
        yield inner
        if not isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            stack.extend(ast.iter_child_nodes(inner))


def own_names(trees: Iterable[ast.Module]) -> frozenset[str]:
    """Names that the files define: methods, functions, attributes that are set, names bound."""
    found: set[str] = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= {node.value} if node.value.isidentifier() else set()  # slots, setattr
    return frozenset(found)
