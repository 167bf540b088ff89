"""Check `imports`: the allow list over the syntax tree, for the mechanism and for its test.

Governance, not a boundary: it tells a reviewer and an author what was reached for, early and by
line. Code that finds a way around it still meets the container. Nothing is executed here.
"""

from __future__ import annotations

import ast

from sandbox import lock as locks
from sandbox.checks.notes import Notes
from sandbox.checks.scopes import scope_of
from sandbox.checks.spelled import Spelled, own_names
from sandbox.checks.table import MECHANISM_MODULES, TEST_MODULES, allowed_names
from sandbox.checks.walk import Table, Walk
from sandbox.report import CheckResult, Draft, DraftError, Finding, Outcome, Severity
from sandbox.syntax import parse

CHECK = "imports"
MAX_FINDINGS = 40
MILD_IN_TESTS = frozenset({"unseeded-random"})


def check(draft: Draft) -> CheckResult:
    """Findings for the mechanism and for its test."""
    findings: list[Finding] = []
    imported: dict[str, list[str]] = {}
    trees: dict[str, ast.Module] = {}
    for path in draft.files:
        try:
            trees[path] = parse(path, draft.files[path])
        except DraftError as error:
            finding = Finding(
                check=CHECK, rule=error.code, severity=Severity.ERROR, message=str(error), path=path
            )
            findings.append(finding)
    own = own_names(trees.values())
    hidden = _modules_of(trees.get(draft.mechanism_path))
    for path, tree in trees.items():
        is_test = path != draft.mechanism_path
        notes = Notes(path, mild=MILD_IN_TESTS if is_test else frozenset())
        walk = Walk(notes, allowed_for(draft.name if is_test else ""), hidden)
        walk.run(tree)
        Spelled(notes, own).visit(tree)
        findings.extend(notes.by_line()[:MAX_FINDINGS])
        imported[path] = sorted(walk.imported)
    failed = any(f.severity is Severity.ERROR for f in findings)
    return CheckResult(
        name=CHECK,
        outcome=Outcome.FAILED if failed else Outcome.PASSED,
        findings=tuple(findings),
        detail={"imported": imported},
    )


def allowed_for(name: str = "") -> Table:
    """Allowed modules -> allowed names (None: what the draft defines); for the test of `name`."""
    names = allowed_names()
    table: dict[str, frozenset[str] | None] = {m: names[m] for m in MECHANISM_MODULES}
    for module, more in locks.current().modules.items():  # what approved requests opened
        table[module] = names.get(module, frozenset()) | frozenset(more)
    if name:
        table |= {m: names[m] for m in TEST_MODULES}
        table |= {f"mechanisms.{name}": None}
    return table


def _modules_of(tree: ast.Module | None) -> frozenset[str]:
    """Names of the mechanism's file that stand for modules: a test imports its own."""
    if tree is None:
        return frozenset()
    names = scope_of(tree, frozenset(MECHANISM_MODULES)).names
    return frozenset(n for n, bindings in names.items() if any(b.is_module for b in bindings))
