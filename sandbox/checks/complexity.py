"""Check `complexity`: whether a person can follow the code that they are asked to approve.

Counts only: branches, nesting, lengths, parameters. Past the first limit a reviewer is warned, past
the second one the draft fails. Says nothing about whether the code is right.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from sandbox.report import CheckResult, Draft, DraftError, Finding, Outcome, Severity
from sandbox.syntax import parse

CHECK = "complexity"
MAX_FINDINGS = 40
Function = ast.FunctionDef | ast.AsyncFunctionDef
DECISIONS = (
    *(ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.Assert),
    *(ast.ExceptHandler, ast.match_case),
)
NESTING = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.With, ast.AsyncWith, ast.Match)
WHY = (
    "Two people approve what runs for hours without them. What has too many ways through it can't "
    "be read, and hides what it does: split it, or say it more simply."
)


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Past `warn` a warning, past `fail` an error."""

    rule: str
    what: str
    warn: int
    fail: int


BRANCHES = Limit(rule="too-many-branches", what="ways through", warn=20, fail=40)
DEPTH = Limit(rule="nested-too-deep", what="levels of nesting", warn=5, fail=8)
FUNCTION_LINES = Limit(rule="function-too-long", what="lines", warn=100, fail=250)
PARAMETERS = Limit(rule="too-many-parameters", what="parameters", warn=12, fail=30)
FILE_LINES = Limit(rule="file-too-long", what="lines", warn=600, fail=1200)
VALUES = Limit(rule="too-much-data", what="values written out", warn=400, fail=2000)
LIMITS = (BRANCHES, DEPTH, FUNCTION_LINES, PARAMETERS, FILE_LINES, VALUES)


def check(draft: Draft) -> CheckResult:
    """Findings for every function of all files, and the largest counts seen."""
    findings: list[Finding] = []
    largest = dict.fromkeys((limit.rule for limit in LIMITS), 0)
    for path, data in draft.files.items():
        try:
            tree = parse(path, data)
        except DraftError as error:
            findings.append(_finding(path, 0, error.code, str(error), Severity.ERROR))
            continue
        mine: list[Finding] = []
        for line, name, limit, count in _counts(tree, data):
            largest[limit.rule] = max(largest[limit.rule], count)
            if count > limit.warn:
                severity = Severity.ERROR if count > limit.fail else Severity.WARNING
                most = limit.fail if severity is Severity.ERROR else limit.warn
                message = f"line {line} {name} has {count} {limit.what} (limit {most})"
                mine.append(_finding(path, line, limit.rule, message, severity))
        mine.sort(key=lambda f: f.severity is not Severity.ERROR)
        findings.extend(mine[:MAX_FINDINGS])
    failed = any(f.severity is Severity.ERROR for f in findings)
    return CheckResult(
        name=CHECK,
        outcome=Outcome.FAILED if failed else Outcome.PASSED,
        findings=tuple(findings),
        detail={"largest": largest},
    )


def _counts(tree: ast.Module, data: bytes) -> Iterator[tuple[int, str, Limit, int]]:
    yield 1, "the file", FILE_LINES, data.count(b"\n") + (not data.endswith(b"\n"))
    values = sum(isinstance(node, ast.Constant) for node in ast.walk(tree))
    yield 1, "the file", VALUES, values
    yield 1, "the module's own code", BRANCHES, branches(tree)
    yield 1, "the module's own code", DEPTH, depth(tree)
    for node in ast.walk(tree):
        if isinstance(node, Function | ast.Lambda):
            name = "a lambda" if isinstance(node, ast.Lambda) else node.name
            yield node.lineno, name, BRANCHES, branches(node)
            yield node.lineno, name, PARAMETERS, _parameters(node.args)
            if not isinstance(node, ast.Lambda):
                yield node.lineno, name, DEPTH, depth(node)
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                yield node.lineno, name, FUNCTION_LINES, lines


def _parameters(arguments: ast.arguments) -> int:
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return len(named) + bool(arguments.vararg) + bool(arguments.kwarg)


def branches(root: ast.AST) -> int:
    """McCabe's number: one, and one more for each decision; inner functions count by themselves."""
    count = 1
    for node in _own(root):
        if isinstance(node, DECISIONS):
            count += 1
        elif isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            count += 1 + len(node.ifs)
    return count


def depth(root: ast.AST) -> int:
    """How deep statements stand in statements; `elif` stands beside its `if`."""
    deepest = 0
    stack: list[tuple[ast.AST, int]] = [(root, 0)]
    while stack:
        node, level = stack.pop()
        deepest = max(deepest, level)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function | ast.Lambda | ast.ClassDef):
                continue
            beside = (
                isinstance(child, ast.If)
                and isinstance(node, ast.If)
                and (child in node.orelse and len(node.orelse) == 1)
            )
            stack.append((child, level + (isinstance(child, NESTING) and not beside)))
    return deepest


def _own(root: ast.AST) -> Iterator[ast.AST]:
    """All parts of a function but those of functions inside of it."""
    stack = list(ast.iter_child_nodes(root))
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, Function | ast.Lambda):
            stack.extend(ast.iter_child_nodes(node))


def _finding(path: str, line: int, rule: str, message: str, severity: Severity) -> Finding:
    return Finding(
        check=CHECK, rule=rule, severity=severity, message=message, path=path, line=line, why=WHY
    )
