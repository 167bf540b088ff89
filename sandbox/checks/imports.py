"""Check `imports`: the allow list over the syntax tree, for the mechanism and for its test.

Governance, not a boundary: it tells a reviewer and an author what was reached for, early and by
line. Code that finds a way around it still meets the container. Nothing is executed here.
"""

from __future__ import annotations

from sandbox.checks.table import MECHANISM_MODULES, TEST_MODULES, allowed_names
from sandbox.checks.walk import Table, Walk
from sandbox.report import CheckResult, Draft, DraftError, Finding, Outcome, Severity
from sandbox.syntax import parse

CHECK = "imports"
MAX_FINDINGS = 40


def check(draft: Draft) -> CheckResult:
    """Findings for the mechanism and for its test."""
    findings: list[Finding] = []
    imported: dict[str, list[str]] = {}
    for path in draft.files:
        try:
            tree = parse(path, draft.files[path])
        except DraftError as error:
            finding = Finding(
                check=CHECK, rule=error.code, severity=Severity.ERROR, message=str(error), path=path
            )
            findings.append(finding)
            continue
        is_test = path != draft.mechanism_path
        walk = Walk(path, allowed_for(draft.name) if is_test else allowed_for())
        findings.extend(walk.run(tree)[:MAX_FINDINGS])
        imported[path] = sorted(walk.imported)
    failed = any(f.severity is Severity.ERROR for f in findings)
    return CheckResult(
        name=CHECK,
        outcome=Outcome.FAILED if failed else Outcome.PASSED,
        findings=tuple(findings),
        detail={"imported": imported},
    )


def allowed_for(name: str = "") -> Table:
    """Allowed modules -> allowed names (None: every public one); for the test of `name`."""
    names = allowed_names()
    table: dict[str, frozenset[str] | None] = {m: names[m] for m in MECHANISM_MODULES}
    if name:
        table |= {m: names[m] for m in TEST_MODULES}
        table |= {f"mechanisms.{name}": None, "sandbox.testing": None}
    return table
