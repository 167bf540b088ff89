"""Check `bandit`: the well-known scanner, over a draft's files, with its own exceptions ignored.

bandit fails open (a file that it can't read is exit 0), so everything but a clean answer about
every file is `could_not_look`. Candidate code is read by it, never executed.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sandbox.report import CheckResult, Draft, Finding, Outcome, Severity

CHECK = "bandit"
TIMEOUT_SECONDS = 60
# B101: tests assert. B311: seeded randomness is what a mechanism is asked to use. B608: SQL in a
# reason's text ("update X, set to Y") where there is no database to inject into. B324: a short
# hash as the key of a configuration, where nothing is secret.
SKIPPED = ("B101", "B311", "B324", "B608")
SEVERITIES = {"HIGH": Severity.ERROR, "MEDIUM": Severity.ERROR, "LOW": Severity.WARNING}
WHY = "A known pattern of dangerous code. Comments that silence the scanner (nosec) are ignored."


def version() -> str:
    """The scanner's version, or "missing"."""
    try:
        return importlib.metadata.version("bandit")
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def check(draft: Draft) -> CheckResult:
    """Run bandit; medium and high fail, low is a warning."""
    with tempfile.TemporaryDirectory(prefix="escapement-bandit-") as folder:
        for path, data in draft.files.items():
            target = Path(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        try:
            answer = _run(Path(folder), sorted(draft.files))
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            return _could_not_look(f"bandit gave no answer: {error}"[:500])
    if answer["errors"]:
        seen = "; ".join(f"{e.get('filename')}: {e.get('reason')}" for e in answer["errors"])
        return _could_not_look(f"bandit could not read {seen}"[:500])
    unseen = sorted(set(draft.files) - {path.removeprefix("./") for path in answer["metrics"]})
    if unseen:
        return _could_not_look(f"bandit did not look at {', '.join(unseen)}")
    findings = tuple(_finding(r) for r in answer["results"][:40])
    failed = any(f.severity is Severity.ERROR for f in findings)
    return CheckResult(
        name=CHECK,
        outcome=Outcome.FAILED if failed else Outcome.PASSED,
        findings=findings,
        detail={"version": version(), "skipped": list(SKIPPED)},
    )


def _run(folder: Path, paths: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-I", "-m", "bandit", "--ignore-nosec", "--format", "json"]
    command += ["--quiet", "--exit-zero", "--skip", ",".join(SKIPPED), *paths]
    done = subprocess.run(  # noqa: S603 - fixed words and paths that the door has checked
        command, cwd=folder, capture_output=True, timeout=TIMEOUT_SECONDS, check=False
    )
    if done.returncode != 0:
        tail = done.stderr.decode("utf-8", "replace")[-300:]
        raise ValueError(f"exit {done.returncode}: {tail}")
    answer = json.loads(done.stdout)
    if not {"errors", "metrics", "results"} <= set(answer):
        raise ValueError("its answer has not the parts that it should have")
    return {k: answer[k] for k in ("errors", "metrics", "results")}


def _finding(result: dict[str, Any]) -> Finding:
    line = int(result["line_number"])
    severity = SEVERITIES.get(str(result["issue_severity"]), Severity.ERROR)
    message = f"line {line} {result['issue_text']} ({str(result['issue_severity']).lower()})"
    return Finding(
        check=CHECK,
        rule=f"{result['test_id']}-{result['test_name']}",
        severity=severity,
        message=message,
        path=str(result["filename"]).removeprefix("./"),
        line=line,
        why=WHY,
    )


def _could_not_look(message: str) -> CheckResult:
    finding = Finding(
        check=CHECK,
        rule="could-not-look",
        severity=Severity.ERROR,
        message=message,
        why="A scanner that did not look has not found anything, and that is no good news.",
    )
    return CheckResult(
        name=CHECK,
        outcome=Outcome.COULD_NOT_LOOK,
        findings=(finding,),
        detail={"version": version()},
    )
