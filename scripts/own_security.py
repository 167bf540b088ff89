"""The scanners that we run on mechanisms, run on ourselves: bandit and pip-audit.

Both fail open: a file that can't be parsed and a service that does not answer look clean from
outside. So their JSON is read here, and there are three results. Exit 0: looked, clean. 1: found
something. 3: could not look (with `ESCAPEMENT_AUDIT=required`, that is a 1).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
CODE = ("sandbox", "runner", "platform", "scripts", "mechanisms_repo", "manage.py")
SAME_AS = {"B703": "S308"}  # two rules of bandit for one call of mark_safe
# Findings in places where no mark can stand, each with why it is none.
REVIEWED = {
    ("platform/audit/triggers.py", "B608"): "definitions of triggers; every part is a constant",
    ("platform/audit/cover.py", "B703"): "the style sheet, a constant of ours",
}
SECONDS = 180
COULD_NOT_LOOK = 3


def say(text: str) -> None:
    sys.stdout.write(f"    {text}\n")


def run(*command: str) -> tuple[dict[str, Any] | None, str]:
    """A scanner's JSON, or None and what it said instead."""
    try:
        done = subprocess.run(  # noqa: S603
            [str(BIN / command[0]), *command[1:]],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"{command[0]} did not end within {SECONDS} s"
    try:
        return json.loads(done.stdout), ""
    except ValueError:
        words = done.stderr.strip()[-600:]
        return None, words or f"{command[0]}: exit {done.returncode}, no output"


def could_not_look(what: str) -> int:
    say(f"COULD NOT LOOK: {what}")
    return 1 if os.environ.get("ESCAPEMENT_AUDIT") == "required" else COULD_NOT_LOOK


def scan_code() -> int:
    """Bandit, medium severity and above (ruff's S rules take the rest)."""
    report, problem = run("bandit", "-r", *CODE, "-f", "json", "-q", "--severity-level", "medium")
    if report is None:
        say(problem)
        return 1
    for error in report["errors"]:
        say(f"not parsed: {error['filename']}: {error['reason']}")
    reviewed = [r for r in report["results"] if is_reviewed(r)]
    found = [r for r in report["results"] if not is_reviewed(r)]
    for result in found:
        place = f"{result['filename']}:{result['line_number']}"
        say(f"{place}: {result['test_id']} {result['issue_text']}")
    files = len(report["metrics"]) - 1  # one entry is the totals
    say(
        f"{files} files, {len(found)} findings, {len(report['errors'])} not parsed, "
        f"{len(reviewed)} more are reviewed and marked where they stand"
    )
    return 1 if found or report["errors"] or files < 1 else 0


def is_reviewed(result: dict[str, Any]) -> bool:
    """Is the finding's own ruff rule (B608 is S608) marked on its lines? One mark for both."""
    if (result["filename"], result["test_id"]) in REVIEWED:
        return True
    rule = SAME_AS.get(result["test_id"], "S" + result["test_id"][1:])
    lines = (ROOT / result["filename"]).read_text(encoding="utf-8").splitlines()
    first, last = min(result["line_range"]), max(result["line_range"])
    return any("# noqa:" in line and rule in line for line in lines[first - 1 : last])


def scan_lock() -> int:
    """pip-audit over every pin. A skipped package was not looked at, so it is not clean."""
    report, problem = run(
        "pip-audit", "-r", "constraints.txt", "--disable-pip", "--no-deps", "-f", "json",
        "--progress-spinner", "off", "--timeout", "15",
    )  # fmt: skip
    if report is None:
        last = problem.splitlines()[-1]
        return could_not_look(f"the advisory service gave no answer ({last[:200]})")
    pins = [p for p in (ROOT / "constraints.txt").read_text().splitlines() if "==" in p]
    looked = [p for p in report["dependencies"] if "vulns" in p]
    for package in looked:
        for hit in package["vulns"]:
            fix = ", ".join(hit["fix_versions"]) or "no fixed version yet"
            say(f"{package['name']} {package['version']}: {hit['id']} (fixed in: {fix})")
    say(f"{len(looked)} of {len(pins)} pins looked up")
    if any(p["vulns"] for p in looked):
        return 1
    if len(looked) < len(pins):
        missed = len(pins) - len(looked)
        return could_not_look(f"the advisory service knows nothing of {missed} of {len(pins)} pins")
    return 0


if __name__ == "__main__":
    scans = {"code": scan_code, "lock": scan_lock}
    if len(sys.argv) != 2 or sys.argv[1] not in scans:
        sys.exit(f"usage: own_security.py {'|'.join(scans)}")
    sys.exit(scans[sys.argv[1]]())
