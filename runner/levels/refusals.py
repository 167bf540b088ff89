"""Whether what a language model wrote is worth submitting: a draft at all, written for the
interface, and no near-duplicate of what is known. Read, never executed, and no judgement of what
it does: that is the gate's.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runner.interfaces import ResearchContext
from sandbox.checks import characters, imports, interface
from sandbox.draft import draft_from_files, mechanism_classes
from sandbox.report import DraftError, Severity
from sandbox.syntax import tree_of

# Nobody judged those: the same may be submitted again. The door was shut, whatever came.
UNJUDGED = ("withdrawn", "expired")
SHUT = ("too_many_open", "stale_base", "not_entitled", "unknown_run")
PYTHON = re.compile(r"(?:from|import|class|def)\b(?!.*\\n)|#|\"|'")  # the beginning of a file
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def refusal(files: Mapping[str, str], name: str, context: ResearchContext) -> str:
    """Why these files are no draft worth submitting, as `RULE: reason`; or ""."""
    path = f"mechanisms/{name}.py"
    try:
        draft = draft_from_files({p: text.encode() for p, text in files.items()})
    except DraftError as error:
        return f"{error.code}: {error}{_beginning(files) if error.code == 'syntax_error' else ''}"
    source = files[path]
    wrong = [f.message for f in interface.findings(tree_of(source), path)] or _undecided(source)
    wrong += _patches(source)
    if _declared_name(source) != name:
        wrong.append(f"the class attribute `name` must be {name!r}")
    if wrong:
        return "interface: " + "; ".join(wrong)[:2000]
    for check in (characters.check, imports.check):  # the gate's own, which only read
        if found := [f for f in check(draft).findings if f.severity is Severity.ERROR]:
            told = "; ".join(f"{f.path}, {f.message}" for f in found[:5])
            return f"{found[0].check}: {told}"[:2000]
    if not _tests(files[f"tests/test_{name}.py"], name):
        return (
            f"no_test: the test file has no `def test_...`, or never imports mechanisms.{name}: "
            "whatever the mechanism did, it would pass"
        )
    shape = fingerprint(source)
    for entry in context.library:
        if shape == fingerprint(entry.source):
            why = f"this is the approved operator {entry.name}, but for constants and names"
            return f"duplicate: {why}"
    if shape == fingerprint(context.mechanism_source):
        return "duplicate: this is the mechanism that runs now, but for constants and names"
    return twin(source, context.earlier_drafts)


def twin(source: str, earlier: Sequence[Mapping[str, Any]]) -> str:
    """Which earlier draft is nearly the same, and what became of it; or ""."""
    shape = fingerprint(source)
    for draft in earlier:
        known = draft.get("source")
        if known and _judged(draft) and shape == fingerprint(known):
            return f"duplicate: the draft {draft['name']!r}, nearly the same, is {draft['state']}"
    return ""


def _judged(draft: Mapping[str, Any]) -> bool:
    """Whether somebody judged it, or will."""
    code = str(draft.get("reason", "")).partition(":")[0]
    return draft["state"] not in UNJUDGED and not (draft["state"] == "refused" and code in SHUT)


def _beginning(files: Mapping[str, str]) -> str:
    """What a file that is not Python begins with: a fence, a patch, prose; nothing where it begins
    as Python does, and has its mistake later."""
    firsts = [text.strip().partition("\n")[0] for text in files.values()]
    told = ", ".join(repr(first[:60]) for first in firsts if not PYTHON.match(first))
    if not told:
        return ""
    return f" A file begins with {told}: give each as it is to be stored, and nothing around it."


def _undecided(source: str) -> list[str]:
    """What is certainly missing from the hooks: there are none that decide, or they answer None."""
    tree = tree_of(source)
    chosen = mechanism_classes(tree)[-1]
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    bound = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    bound |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    if not {*bound, *(f.name for f in functions)} & {*interface.DECIDING}:
        return [
            f"{chosen.name} has neither `propose(self, view, count)` nor `accept(self, trial, "
            "view)`: nothing would ever be decided by it"
        ]
    return [
        f"line {f.lineno} {f.name} never returns anything: it is only begun"
        for f in chosen.body
        if isinstance(f, ast.FunctionDef) and f.name in interface.DECIDING and not _returns(f)
    ]


def _patches(source: str) -> list[str]:
    """Where it changes the interface itself, in place of defining hooks of its own."""
    tree = tree_of(source)
    theirs: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sandbox"):
            theirs |= {a.asname or a.name for a in node.names}
        elif isinstance(node, ast.Import):
            named = [a for a in node.names if a.name.startswith("sandbox")]
            theirs |= {a.asname or a.name.partition(".")[0] for a in named}
    changed: list[ast.expr] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            changed.append(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            changed += [node.args[0]] if node.func.id in {"setattr", "delattr"} else []
    return [
        f"line {node.lineno} changes {ast.unparse(node)[:60]}, which is the interface: define the "
        "hooks in your own class"
        for node in changed
        if _root(node) in theirs
    ]


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _returns(function: ast.FunctionDef) -> bool:
    """Whether it returns something anywhere, inner functions left out."""
    parts: list[ast.AST] = list(function.body)
    while parts:
        part = parts.pop()
        if isinstance(part, ast.Return) and ast.unparse(part) not in ("return", "return None"):
            return True
        if not isinstance(part, Definition | ast.Lambda):
            parts += ast.iter_child_nodes(part)
    return False


def fingerprint(source: str) -> str:
    """SHA-256 (hex) of the program's structure, function by function in any order: without the
    names that it gives, texts, numbers, comments, annotations and imports.

    Two files with the same fingerprint differ in wording and constants at most.
    """
    tree = tree_of(source)
    given = _given(tree)
    parts = sorted(ast.dump(_numbered(_bare(part), given)) for part in _parts(tree))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _given(tree: ast.Module) -> frozenset[str]:
    """Names that the file itself gives; what else it uses is the language's."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, Definition):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found.add(node.name)
    return frozenset(found)


def _parts(node: ast.Module | ast.ClassDef) -> Iterator[ast.stmt]:
    """The statements of a file and its classes; a class itself without its body."""
    for part in node.body:
        if isinstance(part, ast.Import | ast.ImportFrom) or _says_nothing(part):
            continue
        if isinstance(part, ast.ClassDef):
            yield from _parts(part)
            part.body = []
        yield part


def _says_nothing(node: ast.stmt) -> bool:
    constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return constant or isinstance(node, ast.Pass)


def _bare(part: ast.stmt) -> ast.stmt:
    """The statement without docstrings and annotations."""
    for node in ast.walk(part):
        for field in ("body", "orelse", "finalbody"):
            if isinstance(inside := getattr(node, field, None), list):
                setattr(node, field, [_unannotated(s) for s in inside if not _says_nothing(s)])
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
    return _unannotated(part)


def _unannotated(node: ast.stmt) -> ast.stmt:
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        return ast.Assign(targets=[node.target], value=node.value)
    return node


def _numbered(part: ast.stmt, given: frozenset[str]) -> ast.stmt:
    """The statement with numbers in place of the names that the file gives, and of its own
    attributes; with types in place of constants."""
    names: dict[str, str] = {}
    for node in ast.walk(part):
        if isinstance(node, ast.Constant) and not isinstance(node.value, bool | None):
            node.value = type(node.value).__name__
        elif isinstance(node, ast.Attribute):
            own = isinstance(node.value, ast.Name) and node.value.id == "self"
            if own and node.attr not in interface.HOOKS:
                node.attr = names.setdefault(f".{node.attr}", f"n{len(names)}")
        elif isinstance(node, ast.Name) and node.id in given:
            node.id = names.setdefault(node.id, f"n{len(names)}")
        elif isinstance(node, ast.arg):
            node.arg = names.setdefault(node.arg, f"n{len(names)}")
        elif isinstance(node, ast.keyword):
            node.arg = None
        elif isinstance(node, ast.ExceptHandler):
            node.name = None
        elif isinstance(node, Definition):
            node.name = node.name if node.name in interface.HOOKS else ""
    return part


def _tests(test: str, name: str) -> bool:
    """Whether a test file has a test, and has the mechanism to test."""
    nodes = list(ast.walk(tree_of(test)))
    functions = [n for n in nodes if isinstance(n, ast.FunctionDef)]
    imported = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            imported |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    return f"mechanisms.{name}" in imported and any(f.name.startswith("test") for f in functions)


def _declared_name(source: str) -> str | None:
    for cls in mechanism_classes(tree_of(source)):
        for part in cls.body:
            targets = part.targets if isinstance(part, ast.Assign) else []
            targets = [part.target] if isinstance(part, ast.AnnAssign) else targets
            named = any(isinstance(t, ast.Name) and t.id == "name" for t in targets)
            value = part.value if isinstance(part, ast.Assign | ast.AnnAssign) else None
            if named and isinstance(value, ast.Constant):
                return str(value.value)
    return None
