"""Findings of the check `imports`, collected by the passes over one file. Judges nothing."""

from __future__ import annotations

import ast

from sandbox.report import Finding, Severity

WHY_IMPORT = (
    "A mechanism decides what is tried next and what is kept. It works on the plain data of its "
    "view, with the modules of the allow list; everything else is out of its reach."
)
WHY_EVASION = (
    "This way around the allow list is not used by honest search code; a reviewer could not tell "
    "what it reaches when it runs."
)
WHY_CHANCE = "The same seed must give the same search, or nobody can check it."


class Notes:
    """What was found in one file, each thing once; rules that are `mild` only warn."""

    def __init__(self, path: str, mild: frozenset[str] = frozenset()) -> None:
        self.path = path
        self._mild = mild
        self._found: dict[Finding, None] = {}

    def say(
        self, node: ast.AST, rule: str, message: str, why: str, severity: Severity = Severity.ERROR
    ) -> None:
        """Add a finding at the line of `node`."""
        line = getattr(node, "lineno", 0)
        finding = Finding(
            check="imports",
            rule=rule,
            severity=Severity.WARNING if rule in self._mild else severity,
            message=f"line {line} {message}",
            path=self.path,
            line=line,
            why=why,
        )
        self._found.setdefault(finding)

    def by_line(self) -> list[Finding]:
        """Errors and the others, each by line; so that a cut takes no error away for a warning."""
        order = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.NOTE: 2}
        return sorted(self._found, key=lambda f: (order[f.severity], f.line))
