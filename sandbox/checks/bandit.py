"""Check `bandit`: the well-known scanner, over a draft's files, with its own exceptions ignored.

bandit fails open (a file that it can't read is exit 0), so everything but a clean answer about
every file is `could_not_look`. Candidate code is read by it, never executed. A process that has
imported it is kept ready (`bandit_ready.py`): its own command line, forked for each look.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from sandbox.report import CheckResult, Draft, Finding, Outcome, Severity

CHECK = "bandit"
TIMEOUT_SECONDS = 60
START_SECONDS = 60  # of the process that is kept ready, on a cold and very busy machine
SCRIPT = Path(__file__).with_name("bandit_ready.py")
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
    with tempfile.TemporaryDirectory(prefix="escapement-bandit-") as place:
        folder = Path(place, "draft")
        for path, data in draft.files.items():
            target = Path(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        try:
            answer = _run(folder, sorted(draft.files))
        except (OSError, ValueError) as error:
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
    """What bandit wrote about these files. Raises OSError and ValueError: it gave no answer."""
    out, said = folder.parent / "answer.json", folder.parent / "said.txt"
    words = ["--ignore-nosec", "--format", "json", "--output", str(out), "--quiet"]
    words += ["--exit-zero", "--skip", ",".join(SKIPPED), *paths]
    code = _ready.look(folder=str(folder), arguments=words, said=str(said))
    if code != 0:
        tail = said.read_bytes().decode("utf-8", "replace")[-300:]
        raise ValueError(f"exit {code}: {tail}")
    answer = json.loads(out.read_bytes())
    if not {"errors", "metrics", "results"} <= set(answer):
        raise ValueError("its answer has not the parts that it should have")
    return {k: answer[k] for k in ("errors", "metrics", "results")}


class _Ready:
    """The process that has imported bandit, started when it is first needed; one look at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def look(self, **request: Any) -> int:
        """bandit's exit code, negative where it was ended. Raises OSError and ValueError."""
        request["seconds"] = TIMEOUT_SECONDS
        with self._lock:
            process = self._running()
            try:
                return _ask(process, json.dumps(request).encode() + b"\n")
            except (OSError, ValueError):
                self._end(process)
                raise

    def _running(self) -> subprocess.Popen[bytes]:
        process = self._process
        if process is None or self._owner != os.getpid() or process.poll() is not None:
            process = subprocess.Popen(  # noqa: S603 - our own script
                [sys.executable, "-I", "-X", "utf8", str(SCRIPT)],
                env={},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
            )
            self._process, self._owner = process, os.getpid()
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        self._process = None
        process.kill()
        process.wait()


def _ask(process: subprocess.Popen[bytes], line: bytes) -> int:
    if process.stdin is None or process.stdout is None:
        raise ValueError("it has no pipes")
    process.stdin.write(line)
    ready, _, _ = select.select([process.stdout], [], [], START_SECONDS + TIMEOUT_SECONDS)
    answer = process.stdout.readline() if ready else b""
    if not answer:
        raise ValueError("it ended" if ready else "it took too long")
    return int(json.loads(answer)["code"])


_ready = _Ready()


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
