"""Check `unit_tests`: the draft's own tests, run in a worker of their own.

They can fail a draft and never pass it: code under test shares a process with them. A single file
without a test is judged by the other checks, and a note says so.
"""

from __future__ import annotations

from dataclasses import replace

from sandbox.backends.base import Backend
from sandbox.errors import Rule
from sandbox.host import run_unit_tests
from sandbox.judging import WHY
from sandbox.limits import Limits
from sandbox.report import CheckResult, Draft, Finding, Outcome, Severity

CHECK = "unit_tests"
MAX_SECONDS = 30.0  # with the limits of a screening; patient ones are patient here as well
WHY_TESTS = {
    Rule.TESTS_FAILED: "The draft does not do what its own tests say.",
    Rule.NO_TESTS: "A draft comes with a test that runs; skipped ones test nothing.",
}


def check(draft: Draft, *, backend: Backend, limits: Limits) -> CheckResult:
    """Run them. Raises InfrastructureError."""
    if not draft.tests:
        note = Finding(
            check=CHECK,
            rule="no-test-file",
            severity=Severity.NOTE,
            message="a single file without tests/test_NAME.py: there were no tests to run",
            path=draft.mechanism_path,
            why="As a proposal it would be refused: a draft has a test.",
        )
        return CheckResult(
            name=CHECK, outcome=Outcome.PASSED, findings=(note,), detail={"collected": 0}
        )
    patience = max(1.0, limits.call_seconds / Limits.screening().call_seconds)
    seconds = min(MAX_SECONDS * patience, limits.job_seconds or MAX_SECONDS)
    run = run_unit_tests(backend, draft, limits=replace(limits, job_seconds=seconds))
    path = next(iter(draft.tests))
    findings = []
    if not run.passed:
        why = WHY_TESTS.get(Rule(run.rule)) or WHY.get(Rule(run.rule), "")
        shown = run.failures or (run.message or run.rule,)
        findings = [
            Finding(
                check=CHECK,
                rule=run.rule,
                severity=Severity.ERROR,
                message=text[-1500:],
                path=path,
                why=why,
            )
            for text in shown[:10]
        ]
    return CheckResult(
        name=CHECK,
        outcome=Outcome.PASSED if run.passed else Outcome.FAILED,
        findings=tuple(findings),
        seconds=run.seconds,
        detail={"collected": run.collected, "output": run.output[-4000:]},
    )
