"""Check `dependencies`: the packages that a draft imports against those that the image has.

Three findings: a package that is missing, one that is there and not for mechanisms, one with a
known vulnerability. The image's lock was audited before (`sandbox.vulnerabilities`); here its
answer is matched with the imports. Where nobody could look, or with old advisories, a warning says
so: how much that counts is the policy's to say.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from sandbox import advisories, image, sbom, vulnerabilities
from sandbox import lock as locks
from sandbox.checks.reach import MODULES, PROGRAM
from sandbox.report import CheckResult, Draft, DraftError, Finding, Outcome, Severity, digest_of
from sandbox.syntax import parse
from sandbox.vulnerabilities import Scan

CHECK = "dependencies"
FOR_MECHANISMS = frozenset(image.FOR_MECHANISMS)
FOR_TESTS = FOR_MECHANISMS | frozenset(image.FOR_TESTS)
# Parts of the program: the check `imports` says what of them may be used.
OURS = frozenset(n for n, reached in MODULES.items() if reached == PROGRAM)
INTERNALS = frozenset({"_pytest"})  # part of a package: the check `imports` refuses it
# Import names that differ from the package's name.
PACKAGES = {
    "sklearn": "scikit-learn",
    "skopt": "scikit-optimize",
    "skimage": "scikit-image",
    "umap": "umap-learn",
    "attr": "attrs",
    "cv2": "opencv-python",
    "yaml": "pyyaml",
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "dotenv": "python-dotenv",
    "dateutil": "python-dateutil",
    "cma": "cma",
}
WHY_MISSING = (
    "A missing package fails at import, next to a run. Write it with what the image has "
    f"({', '.join(image.FOR_MECHANISMS)}) and the standard library, or ask for the package: that "
    "is a request of its own, with its own review, and changes the lock and the image."
)
WHY_FORBIDDEN = "The image has it for running tests; a mechanism must not depend on it."


WHY_VULNERABLE = (
    "What is publicly known to be broken in a package can be used by whoever writes code for it. "
    "The sandbox image needs a mended version in its lock; the mechanism itself need not change."
)
WHY_NOT_SCANNED = (
    "Nobody looked, or with advisories of long ago: what was found since is not in this report. A "
    "newer snapshot is stored with `python -m sandbox advisories FILE`."
)
MISSING = "dependency-missing"
NOT_SCANNED = "advisories-not-scanned"
STALE = "advisories-stale"


def check(draft: Draft, scan: Callable[[], Scan] = vulnerabilities.current) -> CheckResult:
    """Findings for every imported package that is not the standard library's and not all right."""
    findings: list[Finding] = []
    used: dict[str, tuple[str, int]] = {}  # package -> where it is imported first
    missing: set[str] = set()  # by the name that one would ask for
    lock = locks.current()
    opened, in_image = lock.roots(), {pin.name for pin in lock.pins}
    for path, data in draft.files.items():
        try:
            tree = parse(path, data)
        except DraftError as error:
            findings.append(_finding(path, 0, error.code, str(error), WHY_MISSING))
            continue
        allowed = FOR_MECHANISMS if path == draft.mechanism_path else FOR_TESTS
        seen: set[str] = set()
        for line, package in packages(tree):
            used.setdefault(package, (path, line))
            if distribution(package) in allowed or package in opened | seen:
                continue
            seen.add(package)
            finding = _judge(path, line, package, in_image)
            findings.append(finding)
            if finding.rule == MISSING:
                missing.add(distribution(package))
    known = scan()
    now = datetime.now(UTC)
    findings += _vulnerable(used, known)
    findings += _unknown(known, now)
    failed = any(f.severity is Severity.ERROR for f in findings)
    bill = sbom.document(known.lock)
    return CheckResult(
        name=CHECK,
        outcome=Outcome.FAILED if failed else Outcome.PASSED,
        findings=tuple(findings),
        detail={
            "packages": sorted(used),
            "missing": sorted(missing),
            "advisories": known.to_data(now),
            "sbom": bill,
            "sbom_sha256": digest_of(sbom.canonical(bill)),
        },
    )


def _vulnerable(used: dict[str, tuple[str, int]], known: Scan) -> Iterator[Finding]:
    for package, (path, line) in sorted(used.items()):
        name = distribution(package)
        for one in known.vulnerable.get(name, ()):
            also = f" ({', '.join(one['aliases'])})" if one["aliases"] else ""
            mended = f", mended in {', '.join(one['fixed_in'])}" if one["fixed_in"] else ""
            message = f"line {line} imports {name}, which has {one['id']}{also}{mended}"
            yield _finding(path, line, "vulnerable-dependency", message[:1000], WHY_VULNERABLE)


def _unknown(known: Scan, now: datetime) -> Iterator[Finding]:
    if not known.complete:
        parts = [f"{name}: {why}" for name, why in sorted(known.not_scanned.items())]
        message = f"NOT SCANNED for known vulnerabilities: {known.problem or '; '.join(parts)}"
        yield _warning(NOT_SCANNED, message)
    if known.dated and known.stale(now):
        yield _warning(
            STALE,
            f"the advisories end on {known.dated[:10]}, {known.age_days(now)} days ago (limit "
            f"{advisories.STALE_DAYS})",
        )


def _warning(rule: str, message: str) -> Finding:
    return Finding(
        check=CHECK,
        rule=rule,
        severity=Severity.WARNING,
        message=message[:1000],
        why=WHY_NOT_SCANNED,
    )


def distribution(package: str) -> str:
    """The name under which an imported package is pinned, scanned and billed."""
    return advisories.normal(PACKAGES.get(package, package))


def packages(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Top-level names that a file imports and that are neither ours nor the standard library's."""
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


def _judge(path: str, line: int, package: str, in_image: set[str]) -> Finding:
    if distribution(package) in in_image:
        message = f"line {line} imports {package}, which a mechanism may not use"
        return _finding(path, line, "dependency-forbidden", message, WHY_FORBIDDEN)
    shown = PACKAGES.get(package, package)
    name = package if shown == package else f"{package} (package {shown})"
    message = f"line {line} imports {name}, which the sandbox image does not have"
    return _finding(path, line, MISSING, message, WHY_MISSING)


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
