"""Which names a script binds at its top, how often, and what else happens to them: what decides
whether a constant may be edited. Syntax alone: no values, no bytes.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator

UPPER = re.compile(r"^[A-Z][A-Z0-9_]*$")
SEES_ALL_NAMES = frozenset({"globals", "locals", "vars", "exec", "eval", "dir"})
CHANGES = frozenset(
    {"append", "extend", "insert", "remove", "clear", "sort", "reverse"}
    | {"pop", "popitem", "update", "setdefault"}
)


class Scope:
    """The names of a script's own scope; where it is not `alone`, others may read them all."""

    def __init__(self, tree: ast.Module, *, alone: bool = True) -> None:
        nodes = list(ast.walk(tree))
        names = [node for node in nodes if isinstance(node, ast.Name)]
        self.bound = Counter(bindings(tree))
        self.changed = set(_changed_in_place(nodes))
        self._stored = {n.id for n in names if not isinstance(n.ctx, ast.Load)}
        self._read = {n.id for n in names if isinstance(n.ctx, ast.Load)}
        self._sees_all = not alone or bool(self._read & SEES_ALL_NAMES)
        self._by_functions = {
            n for node in nodes if isinstance(node, ast.Global) for n in node.names
        }

    def stays(self, name: str) -> bool:
        """Whether it is bound once and by nobody else."""
        return self.bound[name] == 1 and name not in self._by_functions

    def why_left(self, name: str, node: ast.expr | None) -> str:
        """Why a name that `assignments` gave is left alone, or ""."""
        if node is None:
            return "it shares its value with other names"
        if self.bound[name] > 1:
            return "it is bound more than once"
        if name in self._by_functions:
            return "a function binds it"
        if name not in self._read and not self._sees_all:
            return "nothing reads it"
        return "the script changes its parts" if name in self.changed else ""

    def others(self) -> Iterator[str]:
        """Names in upper case that are bound in another way than those of `assignments`."""
        yield from (n for n in sorted(self.bound.keys() & self._stored) if UPPER.match(n))


def assignments(tree: ast.Module) -> Iterator[tuple[str, ast.expr | None]]:
    """NAME = VALUE at the top of the script, and at the top of `if __name__ == "__main__"`.

    None stands for a value that several names share.
    """
    for statement in tree.body:
        for one in _main_body(statement) or [statement]:
            match one:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    yield name, value
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    yield name, value
                case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
                    paired = len(targets) == len(values)
                    for i, target in enumerate(targets):
                        if isinstance(target, ast.Name):
                            yield target.id, values[i] if paired else None
                case ast.Assign(targets=targets):
                    yield from ((t.id, None) for t in targets if isinstance(t, ast.Name))


def _main_body(statement: ast.stmt) -> list[ast.stmt]:
    match statement:
        case ast.If(
            test=ast.Compare(
                left=ast.Name(id="__name__"), ops=[ast.Eq()], comparators=[ast.Constant("__main__")]
            ),
            body=body,
        ):
            return body
    return []


def bindings(tree: ast.Module) -> Iterator[str]:
    """Every binding of a name in the module's own scope, as often as it is written."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                yield name
            case ast.alias(name=name, asname=asname):
                yield asname or name.partition(".")[0]
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                yield name
            case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                yield name
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
            waiting += node.decorator_list
        elif isinstance(node, ast.Lambda):
            continue
        else:
            waiting += ast.iter_child_nodes(node)


def _changed_in_place(nodes: list[ast.AST]) -> Iterator[str]:
    """Names whose parts are assigned to, at any depth, or which are told to change."""
    for node in nodes:
        match node:
            case (
                ast.Subscript(value=whole, ctx=ast.Store() | ast.Del())
                | ast.Attribute(value=whole, ctx=ast.Store() | ast.Del())
                | ast.Call(func=ast.Name(id="setattr" | "delattr"), args=[whole, *_])
            ):
                yield _root(whole)
            case ast.Call(func=ast.Attribute(value=whole, attr=method)) if method in CHANGES:
                yield _root(whole)


def _root(node: ast.expr) -> str:
    """The name that A.b['c'] begins with, or ""."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
