"""Which module, if any, a name stands for at a place in a syntax tree. Pure; judges nothing.

Follows Python's own rules of scope as far as imports need them: a parameter called `random` hides
an imported module of that name; a name that one scope both imports and assigns may be the module.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclass(frozen=True, order=True)
class Binding:
    """`module` alone: that module. With `member`: a name taken from it. Neither: own value."""

    module: str = ""
    member: str = ""

    @property
    def is_module(self) -> bool:
        return bool(self.module) and not self.member


OWN = Binding()


class Scope:
    """The names that one module, class, function or comprehension binds."""

    def __init__(self, *, is_class: bool = False, is_function: bool = False) -> None:
        self.names: dict[str, set[Binding]] = {}
        self.outward: set[str] = set()
        self.is_class = is_class
        self.is_function = is_function

    def bind(self, name: str, binding: Binding = OWN) -> None:
        self.names.setdefault(name, set()).add(binding)


def resolve(name: str, scopes: list[Scope]) -> set[Binding]:
    """What `name` may stand for, seen from the innermost of `scopes`; empty: a builtin."""
    for index in range(len(scopes) - 1, -1, -1):
        scope = scopes[index]
        if scope.is_class and index != len(scopes) - 1:
            continue
        if name in scope.names and name not in scope.outward:
            return scope.names[name]
    return set()


def scope_of(node: ast.AST, modules: frozenset[str]) -> Scope:
    """The scope that `node` opens; `modules` are those that an import may turn out to name."""
    own = isinstance(node, (*FUNCTIONS, *COMPREHENSIONS))
    scope = Scope(is_class=isinstance(node, ast.ClassDef), is_function=own)
    if isinstance(node, FUNCTIONS):
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        for argument in [*every, arguments.vararg, arguments.kwarg]:
            if argument is not None:
                scope.bind(argument.arg)
    if isinstance(node, COMPREHENSIONS):
        for generator in node.generators:
            _collect([generator.target], scope, modules)
    elif isinstance(node, ast.Lambda):
        _collect([node.body], scope, modules)
    else:
        _collect(getattr(node, "body", []), scope, modules)
    return scope


def bound_elsewhere(tree: ast.Module, modules: frozenset[str]) -> dict[str, set[Binding]]:
    """Imported names that a function or a class binds outside of itself (`global`, `nonlocal`).
    Where they are seen then depends on what ran before, so they are taken to be seen anywhere."""
    found: dict[str, set[Binding]] = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            scope = scope_of(node, modules)
            for name in scope.outward & scope.names.keys():
                found.setdefault(name, set()).update(b for b in scope.names[name] if b.module)
    return {name: bindings for name, bindings in found.items() if bindings}


def _collect(nodes: Iterable[ast.AST], scope: Scope, modules: frozenset[str]) -> None:
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            scope.bind(node.name)
            continue
        if isinstance(node, (ast.Lambda, *COMPREHENSIONS)):
            continue
        if isinstance(node, ast.Import):
            _bind_import(node, scope)
        elif isinstance(node, ast.ImportFrom):
            _bind_import_from(node, scope, modules)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            scope.bind(node.id)
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            scope.outward |= set(node.names)
        elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
            scope.bind(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            scope.bind(node.rest)
        stack.extend(ast.iter_child_nodes(node))


def _bind_import(node: ast.Import, scope: Scope) -> None:
    for alias in node.names:
        if alias.asname:
            scope.bind(alias.asname, Binding(alias.name))
        else:
            root = alias.name.split(".")[0]
            scope.bind(root, Binding(root))


def _bind_import_from(node: ast.ImportFrom, scope: Scope, modules: frozenset[str]) -> None:
    for alias in node.names:
        name = alias.asname or alias.name
        whole = f"{node.module}.{alias.name}"
        if whole in modules:
            scope.bind(name, Binding(whole))
        else:
            scope.bind(name, Binding(node.module or ".", alias.name))


def outside(node: ast.AST) -> Iterator[ast.AST]:
    """Parts of a scope's node that are evaluated around it."""
    if isinstance(node, ast.ClassDef):
        yield from [*node.decorator_list, *node.bases, *node.keywords]
    elif isinstance(node, FUNCTIONS):
        if not isinstance(node, ast.Lambda):
            yield from node.decorator_list
            if node.returns:
                yield node.returns
        yield from node.args.defaults
        yield from (d for d in node.args.kw_defaults if d is not None)
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg) and argument.annotation:
                yield argument.annotation


def inside(node: ast.AST) -> Iterator[ast.AST]:
    """Parts of a scope's node that are evaluated in it."""
    if isinstance(node, COMPREHENSIONS):
        yield from ast.iter_child_nodes(node)
    elif isinstance(node, ast.Lambda):
        yield node.body
    else:
        yield from getattr(node, "body", [])
