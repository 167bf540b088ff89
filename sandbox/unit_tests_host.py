"""Runs a draft's own unit tests in a worker of their own, and weighs what comes back.

Code under test shares the process with pytest and can forge all of it, so the result can fail a
draft and never pass it.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

from sandbox.backends.base import Backend, Purpose
from sandbox.errors import MechanismFailure, Rule
from sandbox.limits import Limits
from sandbox.posture import require_posture
from sandbox.report import Draft
from sandbox.testrun import MAX_FAILURES
from sandbox.wire import WorkerCalls

WRITABLE = ("/tmp",)  # noqa: S108  # nosec B108
_COUNTS = ("exit_code", "collected", "passed", "skipped")
_FAILURE = ("test", "reason", "message")
_OK, _NOTHING_COLLECTED = 0, 5  # of pytest's exit codes


@dataclass(frozen=True, kw_only=True)
class TestRun:
    """What the draft's tests said. `rule` is "" if they passed, else why not."""

    __test__ = False  # not a test class, whatever its name

    passed: bool
    collected: int
    failures: tuple[str, ...]
    rule: str
    output: str
    seconds: float
    message: str = ""
    posture: dict[str, Any] = field(default_factory=dict)


def run_unit_tests(backend: Backend, draft: Draft, *, limits: Limits) -> TestRun:
    """Run the draft's tests. Raises InfrastructureError only; the draft's faults are the result."""
    channel = backend.start(purpose=Purpose.TESTS, limits=limits, label=draft.name)
    calls = WorkerCalls(channel, limits)
    posture: dict[str, Any] = dict(channel.posture)
    try:
        seen = calls.self_report()
        posture["self_report"] = seen
        require_posture(seen, writable=WRITABLE)
        files = {path: base64.b64encode(data).decode() for path, data in draft.files.items()}
        seconds = limits.job_seconds or limits.load_seconds
        value = calls.request({"op": "run_tests", "files": files}, seconds=seconds)
        rule, message, collected, failures = _weigh(value)
    except MechanismFailure as error:
        rule, message, collected, failures = error.rule, error.message, 0, ()
    finally:
        output = calls.output  # before the end: what is still on its way is waited for
        calls.close()
    return TestRun(
        passed=not rule,
        collected=collected,
        failures=failures,
        rule=rule,
        message=message,
        output=output,
        seconds=round(calls.spent_seconds, 3),
        posture=posture,
    )


def _weigh(value: object) -> tuple[str, str, int, tuple[str, ...]]:
    """Rule ("" if nothing speaks against it), message, collected, failures."""
    if type(value) is not dict or any(type(value.get(c)) is not int for c in _COUNTS):
        raise MechanismFailure(Rule.PROTOCOL_ERROR, "a test result of another shape")
    rows = value.get("failures")
    if type(rows) is not list or len(rows) > MAX_FAILURES:
        raise MechanismFailure(Rule.PROTOCOL_ERROR, "a test result of another shape")
    failures = tuple(_failure(row) for row in rows)
    collected = value["collected"]
    if failures:
        return Rule.TESTS_FAILED, failures[0].splitlines()[0], collected, failures
    if value["exit_code"] not in (_OK, _NOTHING_COLLECTED):
        message = f"pytest ended with exit code {value['exit_code']}"
        return Rule.TESTS_FAILED, message, collected, ()
    if value["exit_code"] == _NOTHING_COLLECTED or collected < 1 or value["passed"] < 1:
        skipped = f" ({value['skipped']} skipped)" if value["skipped"] else ""
        return Rule.NO_TESTS, f"no test ran{skipped}", max(collected, 0), ()
    return "", "", collected, ()


def _failure(row: object) -> str:
    if type(row) is not dict or any(type(row.get(part)) is not str for part in _FAILURE):
        raise MechanismFailure(Rule.PROTOCOL_ERROR, "a test failure of another shape")
    return f"{row['test']}: {row['reason']}\n{row['message']}"
