"""One pass over one file's syntax tree, with a finding for whatever leaves the allow list.

The rules behind `sandbox.checks.imports`; nothing is executed. Names are resolved by scope, so a
parameter that happens to be called `random` or `id` is nobody's business.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Mapping

from sandbox.checks.notes import WHY_CHANCE, WHY_EVASION, WHY_IMPORT, Notes
from sandbox.checks.reach import (
    ATTRIBUTES,
    BUILTINS,
    CHANCE,
    DEFINABLE,
    HARMLESS_DUNDERS,
    HARMLESS_NAMES,
    INTERNALS,
    MODULES,
    reach_of,
)
from sandbox.checks.scopes import (
    COMPREHENSIONS,
    FUNCTIONS,
    Binding,
    Scope,
    bound_elsewhere,
    inside,
    outside,
    resolve,
    scope_of,
)
from sandbox.report import Severity

Table = Mapping[str, frozenset[str] | None]
"""Allowed modules -> their allowed names; None: every one but dunders and `hidden` ones."""

DUNDER = re.compile(r"__\w+__")
BY_NAME = {"getattr": 1, "setattr": 1, "delattr": 1, "attrgetter": 0, "methodcaller": 0}
UNSEEDED = frozenset({"random", "numpy.random"})
SEEDABLE = frozenset({"Random", "default_rng", "RandomState", "SeedSequence"})

NAMED_CALLS = frozenset({"operator", "abc", "enum"})
MAKERS = frozenset({"type", "ABCMeta", "EnumMeta", "EnumType"})  # of classes, from three values


class Walk(ast.NodeVisitor):
    """One pass over one file."""

    def __init__(self, notes: Notes, table: Table, hidden: frozenset[str] = frozenset()) -> None:
        self._hidden = hidden
        self.imported: set[str] = set()
        self._say = notes.say
        self._table = table
        # A package above an allowed module is known too, with no names of its own: `import a.b`.
        parents = {m.rsplit(".", 1)[0] for m in table if "." in m}
        self._modules = frozenset(table) | parents
        self._scopes: list[Scope] = []
        self._elsewhere: dict[str, set[Binding]] = {}
        self._drawn: list[tuple[ast.Call, Binding]] = []
        self._seeded: set[str] = set()
        self._refused: list[tuple[ast.AST, str]] = []
        self._uses: defaultdict[str, set[str]] = defaultdict(set)

    def run(self, tree: ast.Module) -> None:
        """Note what a file reaches for."""
        self._elsewhere = bound_elsewhere(tree, self._modules)
        self.visit(tree)
        for node, module in self._refused:
            uses = sorted(self._uses[module])[:6]
            used = f" and uses {', '.join(uses)}" if uses else ""
            self._say(
                node,
                "import-not-allowed",
                f"imports {module}{used}: a mechanism may not reach {reach_of(module, uses)}",
                WHY_IMPORT,
            )
        for call, drawn in self._drawn:
            seeded = drawn.module in self._seeded and drawn.member not in SEEDABLE
            self._say(
                call,
                "unseeded-random",
                f"calls {drawn.module}.{drawn.member}: {CHANCE}. Use view.random",
                WHY_CHANCE,
                Severity.WARNING if seeded else Severity.ERROR,
            )

    # --- scopes ---

    def visit(self, node: ast.AST) -> None:
        """Dispatch, with a scope pushed for whatever opens one."""
        if isinstance(node, (ast.Module, ast.ClassDef, *FUNCTIONS, *COMPREHENSIONS)):
            for part in outside(node):
                self.visit(part)
            self._scopes.append(scope_of(node, self._modules))
            for part in inside(node):
                self.visit(part)
            self._scopes.pop()
        else:
            super().visit(node)

    def _modules_of(self, name: str) -> list[str]:
        return sorted(b.module for b in self._resolve(name) if b.is_module)

    def _resolve(self, name: str) -> set[Binding]:
        return resolve(name, self._scopes) | self._elsewhere.get(name, set())

    def _is_builtin(self, name: str) -> bool:
        """Whether `name` may be the builtin. A name that the file or a class binds hides nothing:
        `if False: open = None` binds it, and leaves the builtin in place."""
        return not any(name in s.names for s in self._scopes if s.is_function) and not any(
            b.module for b in self._resolve(name)
        )

    # --- imports ---

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.imported.add(alias.name)
            if alias.name not in self._table:
                self._refuse_module(node, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if node.level:
            self._say(node, "import-not-allowed", "imports relative to a package", WHY_IMPORT)
            return
        self.imported.add(module)
        if module not in self._modules:
            self._refuse_module(node, module)
            self._uses[module] |= {alias.name for alias in node.names}
            return
        for alias in node.names:
            if alias.name == "*":
                self._say(
                    node,
                    "star-import",
                    f"imports everything from {module}: name what is needed",
                    WHY_EVASION,
                )
            elif f"{module}.{alias.name}" in self._table:
                self.imported.add(f"{module}.{alias.name}")
            elif module not in self._table:
                self._refuse_module(node, f"{module}.{alias.name}")
            else:
                self._member(node, module, alias.name)

    def _refuse_module(self, node: ast.AST, module: str) -> None:
        self._refused.append((node, module))

    def _member(self, node: ast.AST, module: str, name: str) -> None:
        names = self._table.get(module, frozenset())
        if names is None:
            if DUNDER.fullmatch(name) or name in self._hidden:
                self._say(node, "private-name", f"takes {name} from {module}", WHY_EVASION)
        elif name not in names:
            bare = name.strip("_")
            reach = MODULES.get(name) or MODULES.get(bare) or BUILTINS.get(name)
            tail = f": a mechanism may not reach {reach}" if reach else ""
            self._say(
                node,
                "name-not-allowed",
                f"takes {name} from {module}, which is none of its allowed public names{tail}",
                WHY_EVASION if reach or name.startswith("_") else WHY_IMPORT,
            )

    # --- names, attributes, builtins ---

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            return
        bindings = self._resolve(node.id)
        if any(b.is_module for b in bindings):
            self._say(
                node,
                "module-as-value",
                f"hands the module {node.id} around as a value: use its functions by name",
                WHY_EVASION,
            )
        taken = {b.member for b in bindings if b.module == "operator"} & BY_NAME.keys()
        if taken or (node.id in BY_NAME and self._is_builtin(node.id)):
            self._passed_on(node, node.id)
        if self._is_builtin(node.id):
            self._builtin(node)

    def _passed_on(self, node: ast.AST, name: str) -> None:
        message = f"passes {name} on: attributes must be written out"
        self._say(node, "attribute-by-name", message, WHY_EVASION)

    def _builtin(self, node: ast.Name) -> None:
        if node.id in BUILTINS:
            self._say(
                node,
                "builtin-not-allowed",
                f"uses {node.id}: a mechanism may not reach {BUILTINS[node.id]}",
                WHY_IMPORT,
            )
        elif DUNDER.fullmatch(node.id) and node.id not in HARMLESS_NAMES | DEFINABLE:
            self._say(
                node,
                "dunder-not-allowed",
                f"uses {node.id}: a mechanism may not reach {INTERNALS}",
                WHY_EVASION,
            )
        elif node.id == "id" and not self._resolve("id"):
            self._say(
                node,
                "not-replayable",
                "uses id(): memory addresses differ from run to run",
                WHY_CHANCE,
                Severity.WARNING,
            )

    def visit_Attribute(self, node: ast.Attribute) -> None:
        root, parts = _chain(node)
        modules = self._modules_of(root.id) if isinstance(root, ast.Name) else []
        for module in modules:
            self._module_chain(node, module, parts)
        if not modules:
            if isinstance(root, ast.Name) and not isinstance(node.ctx, ast.Load):
                self._changed(node, root.id)
            self._attribute(node, node.attr)
            inner = node.value
            if _is_class_name(node) and isinstance(inner, ast.Attribute):
                inner = inner.value
            self.visit(inner)

    def _module_chain(self, node: ast.Attribute, module: str, parts: list[str]) -> None:
        if module not in self._modules:
            self._uses[module].add(parts[0])
        for index, part in enumerate(parts):
            if f"{module}.{part}" in self._modules:
                module = f"{module}.{part}"
                continue
            if module in self._table or module in self._modules:
                self._member(node, module, part)
            if module == "operator" and part in BY_NAME:  # calls of it are looked at elsewhere
                self._passed_on(node, part)
            if not isinstance(node.ctx, ast.Load) and index == len(parts) - 1:
                self._say(
                    node, "module-changed", f"changes {part} of the module {module}", WHY_EVASION
                )
            for rest in parts[index + 1 :]:
                self._attribute(node, rest)
            return
        self._say(
            node,
            "module-as-value",
            f"hands the module {module} around as a value: use its functions by name",
            WHY_EVASION,
        )

    def _changed(self, node: ast.AST, name: str) -> None:
        if taken := [b for b in self._resolve(name) if b.member]:
            self._say(
                node,
                "import-changed",
                f"changes {name}, which is {taken[0].module}'s and not its own",
                WHY_EVASION,
            )

    def _attribute(self, node: ast.AST, name: str) -> None:
        if name in ATTRIBUTES:
            self._say(
                node,
                "attribute-not-allowed",
                f"uses .{name}: a mechanism may not reach {ATTRIBUTES[name]}",
                WHY_EVASION,
            )
        elif DUNDER.fullmatch(name) and name not in HARMLESS_DUNDERS and not _on_self(node, name):
            self._say(
                node,
                "dunder-not-allowed",
                f"uses .{name}: a mechanism may not reach {INTERNALS}",
                WHY_EVASION,
            )

    def visit_Call(self, node: ast.Call) -> None:
        name, binding = self._called(node.func)
        if name == "vars" and not node.args:
            self._say(
                node,
                "builtin-not-allowed",
                f"uses vars() of a scope: a mechanism may not reach {INTERNALS}",
                WHY_IMPORT,
            )
        if name in MAKERS and len(node.args) == 3:
            self._say(
                node,
                "builtin-not-allowed",
                f"makes a class with {name}(): write the class out",
                WHY_EVASION,
            )
        if name in BY_NAME:
            self._by_name(node, name)
        else:
            self.visit(node.func)
        if binding is not None and binding.module in UNSEEDED:
            self._chance(node, binding)
        given = node.args[1:] if self._patches_own(node) else node.args
        for part in [*given, *node.keywords]:
            self.visit(part)

    def _patches_own(self, node: ast.Call) -> bool:
        """`monkeypatch.setattr(module, ...)` of the module that a test is about."""
        root, parts = _chain(node.func)
        if not isinstance(root, ast.Name) or root.id != "monkeypatch" or parts != ["setattr"]:
            return False
        first = node.args[0] if node.args else None
        return isinstance(first, ast.Name) and any(
            self._table.get(module, frozenset()) is None for module in self._modules_of(first.id)
        )

    def _called(self, function: ast.expr) -> tuple[str, Binding | None]:
        """The builtin or the module's member that a call names."""
        if isinstance(function, ast.Name):
            members = sorted(b for b in self._resolve(function.id) if b.member)
            if not members:
                return (function.id if self._is_builtin(function.id) else ""), None
            return (members[0].member if members[0].module in NAMED_CALLS else ""), members[0]
        root, parts = _chain(function)
        if isinstance(root, ast.Name) and parts:
            for module in self._modules_of(root.id):
                whole = ".".join([module, *parts[:-1]])
                return (parts[-1] if whole in NAMED_CALLS else ""), Binding(whole, parts[-1])
        return "", None

    def _by_name(self, node: ast.Call, name: str) -> None:
        place = BY_NAME[name]
        given = node.args[place:] if name == "attrgetter" else node.args[place : place + 1]
        first = node.args[0] if node.args else None
        if isinstance(first, ast.Name) and name in ("setattr", "delattr"):
            self._changed(node, first.id)
        if name == "setattr" and first is not None and _is_self(first):
            return
        for argument in given:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                for part in argument.value.split("."):
                    self._attribute(argument, part)
                continue
            self._say(
                node,
                "attribute-by-name",
                f"calls {name} with a name that is computed: attributes must be written out",
                WHY_EVASION,
            )

    def _chance(self, node: ast.Call, binding: Binding) -> None:
        if binding.member in SEEDABLE | {"seed"} and (node.args or node.keywords):
            self._seeded |= {binding.module} if binding.member == "seed" else set()
            return
        if binding.member[:1].isupper() and binding.member not in SEEDABLE:
            return
        self._drawn.append((node, binding))

    # --- the rest ---

    def visit_Compare(self, node: ast.Compare) -> None:
        left, *others = [node.left, *node.comparators]
        is_none = len(others) == 1 and isinstance(others[0], ast.Constant)
        if is_none and isinstance(node.ops[0], (ast.Is, ast.IsNot)) and isinstance(left, ast.Name):
            return  # `np is None` after a guarded import
        self.generic_visit(node)

    def visit_MatchClass(self, node: ast.MatchClass) -> None:
        for name in node.kwd_attrs:
            self._attribute(node, name)
        self.generic_visit(node)


def _chain(node: ast.expr) -> tuple[ast.expr, list[str]]:
    """`a.b.c` as its root and attributes."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return node, parts[::-1]


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _on_self(node: ast.AST, name: str) -> bool:
    """`self.__class__` is what `type(self)` is."""
    return name == "__class__" and isinstance(node, ast.Attribute) and _is_self(node.value)


def _is_class_name(node: ast.Attribute) -> bool:
    """`x.__class__.__name__`, the one use of `__class__` that leads nowhere."""
    return (
        node.attr in ("__name__", "__qualname__")
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == "__class__"
    )
