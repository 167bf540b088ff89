"""Check `dependencies`: the packages that a draft imports against those that the image has.

Says before any import fails which package is missing or not allowed, and how to ask for it. Known
vulnerabilities are not looked up here, and the result says so.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator

from sandbox.report import CheckResult, Draft, DraftError, Finding, Outcome, Severity
from sandbox.syntax import parse

CHECK = "dependencies"
FOR_MECHANISMS = frozenset({"numpy"})
FOR_TESTS = FOR_MECHANISMS | {"pytest"}
OURS = frozenset({"sandbox", "mechanisms"})
INTERNALS = frozenset({"_pytest"})  # part of a package: the check `imports` refuses it
# Import names that differ from the package's name.
PACKAGES = {
    "sklearn": "scikit-learn",
    "skopt": "scikit-optimize",
    "cv2": "opencv-python",
    "yaml": "pyyaml",
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "dotenv": "python-dotenv",
    "dateutil": "python-dateutil",
    "cma": "cma",
}
WHY_MISSING = (
    "A missing package fails at import, next to a run. Write it with numpy and the standard "
    "library, or ask whoever owns the sandbox image to add the package to its lock: that is a "
    "change of its own, with its own review."
)
WHY_FORBIDDEN = "The image has it for running tests; a mechanism must not depend on it."


def check(draft: Draft) -> CheckResult:
    """Findings for every imported package that is neither the standard library's nor allowed."""
    findings: list[Finding] = []
    used: set[str] = set()
    for path, data in draft.files.items():
        try:
            tree = parse(path, data)
        except DraftError as error:
            findings.append(_finding(path, 0, error.code, str(error), WHY_MISSING))
            continue
        allowed = FOR_MECHANISMS if path == draft.mechanism_path else FOR_TESTS
        seen: set[str] = set()
        for line, package in _packages(tree):
            used.add(package)
            if package in allowed or package in seen:
                continue
            seen.add(package)
            findings.append(_judge(path, line, package))
    return CheckResult(
        name=CHECK,
        outcome=Outcome.FAILED if findings else Outcome.PASSED,
        findings=tuple(findings),
        detail={"packages": sorted(used), "advisories": "not scanned"},
    )


def _packages(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [node.module]
        for name in names:
            root = name.split(".", maxsplit=1)[0]
            if root not in sys.stdlib_module_names and root not in OURS | INTERNALS:
                yield node.lineno, root  # type: ignore[attr-defined]


def _judge(path: str, line: int, package: str) -> Finding:
    if package in FOR_TESTS:
        message = f"line {line} imports {package}, which a mechanism may not use"
        return _finding(path, line, "dependency-forbidden", message, WHY_FORBIDDEN)
    shown = PACKAGES.get(package, package)
    name = package if shown == package else f"{package} (package {shown})"
    message = f"line {line} imports {name}, which the sandbox image does not have"
    return _finding(path, line, "dependency-missing", message, WHY_MISSING)


def _finding(path: str, line: int, rule: str, message: str, why: str) -> Finding:
    return Finding(
        check=CHECK,
        rule=rule,
        severity=Severity.ERROR,
        message=message,
        path=path,
        line=line,
        why=why,
    )
