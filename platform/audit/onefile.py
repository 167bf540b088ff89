"""The verifier as one file: the modules of `audit.verifier`, joined. It is `verify.py` of a bundle.

    PYTHONPATH=platform python -m audit.onefile > verify.py

An auditor gets, and reads, one file that needs nothing else. The same modules give the same bytes.
Nothing is rewritten but imports: so a module has them first, of the standard library or as
`from audit.verifier.X import NAME`, and no name may mean two things in two modules.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections import defaultdict
from pathlib import Path

from sandbox.syntax import tree_of

PACKAGE = Path(__file__).parent / "verifier"
# Each module stands behind those that it uses.
ORDER = (
    *("result", "signing", "chain", "signed", "ledger", "changes", "library", "rules"),
    *("operators", "bundle", "command"),
)
END = 'if __name__ == "__main__":\n    sys.exit(main())\n'


class NotJoinable(ValueError):
    """The modules can't be one file; the message says what to mend."""


def source(package: Path = PACKAGE, order: tuple[str, ...] = ORDER) -> str:
    """The one file. Raises NotJoinable."""
    if odd := {p.stem for p in package.glob("*.py")} ^ {"__init__", *order}:
        raise NotJoinable(f"{sorted(odd)}: every module stands in ORDER, and nothing else does")
    imports: defaultdict[str, set[str]] = defaultdict(set)
    owners: dict[str, str] = {}
    bodies = []
    for module in order:
        text = (package / f"{module}.py").read_text("utf-8")
        said, *statements = tree_of(text).body
        head = [n for n in statements if isinstance(n, ast.Import | ast.ImportFrom)]
        rest = statements[len(head) :]
        if [*head, *rest] != statements or not head or not isinstance(said, ast.Expr):
            raise NotJoinable(f"{module} has no docstring, or its imports do not come first")
        for imported in head:
            _import(module, imported, owners, imports)
        for defined in rest:
            _own(module, defined, owners)
        about = "\n".join(f"# {line}".rstrip() for line in ast.literal_eval(said.value).split("\n"))
        body = "".join(text.splitlines(keepends=True)[head[-1].end_lineno :]).strip("\n")
        bodies.append(f"# {f' {module} ':-^98}\n{about}\n\n\n{body}\n")
    top = ast.get_docstring(tree_of((package / "__init__.py").read_text("utf-8")), clean=False)
    plain = [f"import {name}\n" for name in sorted(imports.pop("", ()))]
    named = [
        f"from {m} import {', '.join(sorted(names))}\n" for m, names in sorted(imports.items())
    ]
    start = f'"""{top}"""\n\nfrom __future__ import annotations\n\n{"".join(plain + named)}'
    return "\n\n".join([start, *bodies, END])


def _import(
    module: str,
    node: ast.Import | ast.ImportFrom,
    owners: dict[str, str],
    imports: dict[str, set[str]],
) -> None:
    """Note an import for the file's top; one of a module that stands before it needs none."""
    source_of = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
    if any(alias.asname or alias.name == "*" for alias in node.names):
        raise NotJoinable(f"{module}:{node.lineno} imports by another name, or *")
    if source_of == "__future__":
        return
    if source_of.startswith("audit.verifier."):
        maker = source_of.rpartition(".")[2]
        if unknown := [a.name for a in node.names if owners.get(a.name) != maker]:
            raise NotJoinable(f"{module} imports {unknown} of {maker}, which stands not before it")
        return
    for top in [source_of] if source_of else [alias.name for alias in node.names]:
        if top.split(".")[0] not in sys.stdlib_module_names:
            raise NotJoinable(f"{module} imports {top} at its top: the standard library alone")
    for alias in node.names:
        _take(alias.name, "an import", owners)
        imports[source_of].add(alias.name)


def _own(module: str, node: ast.stmt, owners: dict[str, str]) -> None:
    """Note what a statement of a module defines."""
    names: list[str] = []
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        names = [node.name]
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
    if not names:
        raise NotJoinable(f"{module}:{node.lineno} defines no name: only definitions are joined")
    for name in names:
        _take(name, module, owners)


def _take(name: str, owner: str, owners: dict[str, str]) -> None:
    if hasattr(builtins, name) or owners.setdefault(name, owner) != owner:
        raise NotJoinable(f"{name} of {owner} is {owners.get(name, 'a builtin')} too: rename one")


if __name__ == "__main__":
    sys.stdout.write(source())
