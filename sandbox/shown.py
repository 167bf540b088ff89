"""A report as a person reads it in a terminal. Judges nothing.

Text of a candidate's making (messages, names) is printed without markup and with control
characters spelled out, so that it can't pass for ours.
"""

from __future__ import annotations

import platform
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from sandbox.draft import name_from
from sandbox.report import (
    CheckResult,
    DraftError,
    Finding,
    Outcome,
    Report,
    Severity,
    digest_of,
)
from sandbox.screen import CHECKS, WHY_DRAFT

OUTPUT_CHARS, OUTPUT_LINES = 600, 6
COLOURS = {
    Outcome.PASSED: "green",
    Outcome.FAILED: "red",
    Outcome.COULD_NOT_LOOK: "yellow",
    Outcome.SKIPPED: "dim",
}
WORDS = {
    Outcome.PASSED: "PASSED",
    Outcome.FAILED: "FAILED",
    Outcome.COULD_NOT_LOOK: "COULD NOT BE JUDGED",
    Outcome.SKIPPED: "SKIPPED",
}


def refused_report(path: Path, error: DraftError) -> Report:
    """The report of a draft that is refused at the door: one failed check, the others skipped."""
    finding = Finding(
        check="draft",
        rule=error.code,
        severity=Severity.ERROR,
        message=str(error),
        path=path.name,
        why=WHY_DRAFT,
    )
    first = CheckResult(name="draft", outcome=Outcome.FAILED, findings=(finding,))
    rest = [CheckResult(name=name, outcome=Outcome.SKIPPED) for name in CHECKS[1:]]
    return Report(
        mechanism=name_from(path.stem),
        digest=digest_of(b""),
        checks=(first, *rest),
        image_id="",
        posture={},
        versions={"python": platform.python_version()},
    )


def show(report: Report, out: Console) -> None:
    """Print a report."""
    outcome = report.outcome
    out.print(WORDS[outcome], style=f"bold {COLOURS[outcome]}", end=" ")
    out.print(_plain(report.mechanism), markup=False, highlight=False, end=" ")
    out.print(f"({report.seconds:.1f} s)", style="dim", highlight=False)
    for check in report.checks:
        _check(check, out)
    out.print(f"mechanism  {report.digest}", style="dim", highlight=False)
    out.print(f"image      {report.image_id or '(none)'}", style="dim", highlight=False)
    out.print(f"evidence   {report.evidence_digest}", style="dim", highlight=False)
    if outcome is Outcome.COULD_NOT_LOOK:
        left_out = [c.name for c in report.checks if c.outcome is not Outcome.PASSED]
        out.print(
            f"Nobody looked at: {', '.join(left_out)}. That is neither passed nor failed.",
            style="yellow",
        )


def _check(check: CheckResult, out: Console) -> None:
    out.print(f"  {check.name:<13}", end="", highlight=False)
    words = WORDS[check.outcome].lower()
    out.print(f"{words:<20}", style=COLOURS[check.outcome], end="", highlight=False)
    out.print(_detail(check), style="dim", markup=False, highlight=False)
    for finding in check.findings:
        _finding(finding, out)
    output = check.detail.get("output")
    if check.outcome is Outcome.FAILED and isinstance(output, str) and output.strip():
        out.print("    the end of what it printed:", style="dim", highlight=False)
        for line in output[-OUTPUT_CHARS:].splitlines()[-OUTPUT_LINES:]:
            out.print(f"      {_plain(line)}", style="dim", markup=False, highlight=False)


def _detail(check: CheckResult) -> str:
    seconds = f"{check.seconds:.1f} s" if check.seconds >= 0.05 else ""
    if check.name == "replay" and "totals" in check.detail:
        return f"{seconds}, {_replay(check.detail['totals'], check.detail['prediction'])}"
    if check.name == "dependencies" and check.outcome is Outcome.PASSED:
        known = check.detail["advisories"]
        until = f" up to {known['dated'][:10]}" if known["dated"] else ""
        return f"advisories: {known['state']}{until}"
    return seconds


def _replay(totals: Mapping[str, Any], predicted: Mapping[str, Any]) -> str:
    said = f"{totals['decisions_changed']} of {totals['steps']} steps would have gone otherwise"
    gain = predicted["gain_sigma"]
    if gain is None or gain["low"] is None:
        return f"{said}; no predicted gain"
    ends = f"{gain['low']:+.0f} to {gain['high']:+.0f}"
    return (
        f"{said}; predicted gain {gain['value']:+.0f} sigma (95 %: {ends}, n = {gain['n']}, "
        f"{predicted['source']}): {predicted['says']}"
    )


def _finding(finding: Finding, out: Console) -> None:
    colour = {Severity.ERROR: "red", Severity.WARNING: "yellow"}.get(finding.severity, "dim")
    place = f"{finding.path}:{finding.line}" if finding.line else finding.path
    out.print(f"    {finding.severity}", style=colour, end=" ", highlight=False)
    head = f"{finding.rule}  {_plain(place)}".rstrip()
    out.print(head, style="bold", markup=False, highlight=False)
    for line in finding.message.splitlines() or [""]:
        out.print(f"      {_plain(line)}", markup=False, highlight=False)
    if finding.why:
        out.print(f"      {finding.why}", style="dim", markup=False, highlight=False)


def _plain(text: str) -> str:
    return "".join(
        c if unicodedata.category(c)[0] != "C" and c.isprintable() else f"\\u{ord(c):04x}"
        for c in text
    )
