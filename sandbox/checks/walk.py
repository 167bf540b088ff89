"""One pass over one file's syntax tree, with a finding for whatever leaves the allow list.

The rules behind `sandbox.checks.imports`; nothing is executed. Names are resolved by scope, so a
parameter that happens to be called `random` or `id` is nobody's business.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Mapping

from sandbox.checks.reach import (
    ATTRIBUTES,
    BUILTINS,
    CHANCE,
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
    inside,
    outside,
    resolve,
    scope_of,
)
from sandbox.report import Finding, Severity

Table = Mapping[str, frozenset[str] | None]
"""Allowed modules -> their allowed names; None: every public one."""

DUNDER = re.compile(r"__\w+__")
FORMAT_REACH = re.compile(r"\{[^{}]*(?:\.|\[)\s*__\w+__")
BY_NAME = {"getattr": 1, "setattr": 1, "delattr": 1, "attrgetter": 0, "methodcaller": 0}
UNSEEDED = frozenset({"random", "numpy.random"})
SEEDABLE = frozenset({"Random", "default_rng", "RandomState", "SeedSequence"})

WHY_IMPORT = (
    "A mechanism decides what is tried next and what is kept. It works on the plain data of its "
    "view, with the modules of the allow list; everything else is out of its reach."
)
WHY_EVASION = (
    "This way around the allow list is not used by honest search code; a reviewer could not tell "
    "what it reaches when it runs."
)


class Walk(ast.NodeVisitor):
    """One pass over one file."""

    def __init__(self, path: str, table: Table) -> None:
        self.findings: list[Finding] = []
        self.imported: set[str] = set()
        self._path = path
        self._table = table
        # A package above an allowed module is known too, with no names of its own: `import a.b`.
        parents = {m.rsplit(".", 1)[0] for m in table if "." in m}
        self._modules = frozenset(table) | parents
        self._scopes: list[Scope] = []
        self._refused: list[tuple[ast.AST, str]] = []
        self._uses: defaultdict[str, set[str]] = defaultdict(set)

    def run(self, tree: ast.Module) -> list[Finding]:
        """The findings for a file, by line."""
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
        return sorted(self.findings, key=lambda f: f.line)

    def _say(
        self, node: ast.AST, rule: str, message: str, why: str, severity: Severity = Severity.ERROR
    ) -> None:
        line = getattr(node, "lineno", 0)
        finding = Finding(
            check="imports",
            rule=rule,
            severity=severity,
            message=f"line {line} {message}",
            path=self._path,
            line=line,
            why=why,
        )
        if finding not in self.findings:
            self.findings.append(finding)

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
        return sorted(b.module for b in resolve(name, self._scopes) if b.is_module)

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
            if name.startswith("_"):
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
        bindings = resolve(node.id, self._scopes)
        if any(b.is_module for b in bindings):
            self._say(
                node,
                "module-as-value",
                f"hands the module {node.id} around as a value: use its functions by name",
                WHY_EVASION,
            )
        taken = {b.member for b in bindings if b.module == "operator"} & BY_NAME.keys()
        if taken or (not bindings and node.id in BY_NAME):
            self._passed_on(node, node.id)
        if not bindings:
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
        elif DUNDER.fullmatch(node.id) and node.id not in HARMLESS_NAMES:
            self._say(
                node,
                "dunder-not-allowed",
                f"uses {node.id}: a mechanism may not reach {INTERNALS}",
                WHY_EVASION,
            )
        elif node.id == "id":
            self._say(
                node,
                "not-replayable",
                "uses id(): memory addresses differ from run to run",
                "The same seed must give the same search, or nobody can check it.",
                Severity.WARNING,
            )

    def visit_Attribute(self, node: ast.Attribute) -> None:
        root, parts = _chain(node)
        modules = self._modules_of(root.id) if isinstance(root, ast.Name) else []
        for module in modules:
            self._module_chain(node, module, parts)
        if not modules:
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
        if name in BY_NAME:
            self._by_name(node, name)
        else:
            self.visit(node.func)
        if binding is not None and binding.module in UNSEEDED:
            self._chance(node, binding)
        for part in [*node.args, *node.keywords]:
            self.visit(part)

    def _called(self, function: ast.expr) -> tuple[str, Binding | None]:
        """The builtin or the module's member that a call names."""
        if isinstance(function, ast.Name):
            bindings = resolve(function.id, self._scopes)
            if not bindings:
                return function.id, None
            members = [b for b in bindings if b.member]
            member = members[0] if members else None
            is_operator = member is not None and member.module == "operator"
            return (member.member if member and is_operator else ""), member
        root, parts = _chain(function)
        if isinstance(root, ast.Name) and parts:
            for module in self._modules_of(root.id):
                whole = ".".join([module, *parts[:-1]])
                return (parts[-1] if whole == "operator" else ""), Binding(whole, parts[-1])
        return "", None

    def _by_name(self, node: ast.Call, name: str) -> None:
        place = BY_NAME[name]
        given = node.args[place:] if name == "attrgetter" else node.args[place : place + 1]
        if name == "setattr" and node.args and _is_self(node.args[0]):
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
        if binding.member in SEEDABLE and (node.args or node.keywords):
            return
        if binding.member[:1].isupper() and binding.member not in SEEDABLE:
            return
        self._say(
            node,
            "unseeded-random",
            f"calls {binding.module}.{binding.member}: {CHANCE}. Use view.random",
            "The same seed must give the same search, or nobody can check it.",
            Severity.WARNING,
        )

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

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and FORMAT_REACH.search(node.value):
            self._say(
                node,
                "format-reach",
                "has a format text that reads dunder attributes: a mechanism may not reach "
                f"{INTERNALS}",
                WHY_EVASION,
            )


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
