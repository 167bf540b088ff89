"""The approval policy of the benchmark, and of nothing else: a script in the place of people.

It approves whatever passed every check, because no person can sit beside hundreds of repeats. It
lets one finding through, that a mechanism is inert, for one mechanism, the benchmark's own placebo,
known by the digest of its bytes; each time that is on record. It is not the platform's policy
(`platform/proposals/policy.py`), it is never used by `runner run`, and nothing that it approves is
approved anywhere else. Pure: no file, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.report import CheckResult, Outcome, Report, Severity

LABEL = "benchmark: approved by a script, nobody looked"
LET_THROUGH = "inert"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Yes or no, why, and which findings were let through."""

    approved: bool
    reasons: tuple[str, ...]
    let_through: tuple[str, ...] = ()


def decide(report: Report, *, placebo_digest: str) -> Decision:
    """The decision on the report of one screening."""
    left = [c for c in report.checks if c.outcome is not Outcome.PASSED]
    if not report.checks:
        return Decision(approved=False, reasons=("no check was run",))
    if not left:
        return Decision(approved=True, reasons=(f"all {len(report.checks)} checks passed",))
    if report.digest == placebo_digest and all(map(_only_inert, left)):
        return Decision(
            approved=True,
            reasons=("all other checks passed; it is the placebo, and inert is what it is for",),
            let_through=(LET_THROUGH,),
        )
    return Decision(approved=False, reasons=tuple(_reason(check) for check in left))


def _only_inert(check: CheckResult) -> bool:
    """Whether a check failed, and being inert is all that is wrong."""
    wrong = [f.rule for f in check.findings if f.severity is Severity.ERROR]
    return check.outcome is Outcome.FAILED and wrong == [LET_THROUGH]


def _reason(check: CheckResult) -> str:
    rules = sorted({f.rule for f in check.findings if f.severity is Severity.ERROR})
    return f"{check.name}: {check.outcome}" + (f" ({', '.join(rules)})" if rules else "")
