"""The gate of the arms: every mechanism is screened for real, once, before an arm may load it.

The verdict on the same bytes (mechanism and test) serves all repeats of one command; each decision
is a line of `gate.jsonl`, with report digest, posture and policy. A screening that could not look
stops the command: nothing is decided then. It loads nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runner.arms import approval
from runner.arms.spec import ArmsError
from sandbox.backends.base import Backend
from sandbox.draft import draft_from_files
from sandbox.errors import InfrastructureError
from sandbox.limits import Limits
from sandbox.report import Draft, DraftError, Outcome, Report
from sandbox.screen import screen

PLACEBO = Path(__file__).parent / "placebo"
# Every check of a screening, with a patient clock: how busy a machine is must not decide which
# mechanisms an arm has. Memory, processor time, bytes and counts are those of any screening.
PATIENT = replace(
    Limits.screening(), start_seconds=300, load_seconds=300, call_seconds=120, job_seconds=1200
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate says of a draft."""

    digest: str
    approved: bool
    reasons: tuple[str, ...]
    let_through: tuple[str, ...] = ()
    evidence: str = ""


def placebo_files() -> dict[str, bytes]:
    """The placebo and its test, as a draft's files."""
    names = ("mechanisms/placebo.py", "tests/test_placebo.py")
    return {name: (PLACEBO / name).read_bytes() for name in names}


def placebo_digest() -> str:
    """SHA-256 (hex) of the placebo's bytes."""
    return hashlib.sha256(placebo_files()["mechanisms/placebo.py"]).hexdigest()


def files_digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 (hex) over the names and bytes of a draft's files."""
    parts = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Gate:
    """Screens drafts and remembers the decisions, in `path`."""

    def __init__(
        self,
        path: Path,
        *,
        backend: Callable[[], Backend],
        library: Mapping[str, bytes],
        say: Callable[[str], None],
    ) -> None:
        """`library`: the approved operators by name. Raises ArmsError where the file is broken."""
        self._path = path
        self._backend = backend
        self._library = dict(library)
        self._say = say
        self._placebo = placebo_digest()
        self._known: dict[str, Verdict] = {}
        for row in _rows(path):
            if row["policy_digest"] == _policy_digest():  # another policy's word is not this one's
                self._known[row["files_digest"]] = _verdict(row)

    def decide(self, files: Mapping[str, bytes]) -> Verdict:
        """The verdict on a draft. Raises InfrastructureError where nobody could look."""
        key = files_digest(files)
        if key not in self._known:
            row = {"files_digest": key, **self._screen(files)}
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, sort_keys=True) + "\n")
                file.flush()
                os.fsync(file.fileno())
            self._known[key] = _verdict(row)
        return self._known[key]

    def _screen(self, files: Mapping[str, bytes]) -> dict[str, Any]:
        try:
            draft = draft_from_files(files)
        except DraftError as error:
            decision = approval.Decision(approved=False, reasons=(f"draft: {error.code}: {error}",))
            source = next((d for n, d in files.items() if n.startswith("mechanisms/")), b"")
            return {
                "digest": hashlib.sha256(source).hexdigest(),
                "mechanism": "",
                **self._decided(decision),
            }
        self._say(f"gate: screening {draft.name} {draft.digest[:12]}")
        report = screen(draft, backend=self._backend(), library=self._library, limits=PATIENT)
        if report.outcome is Outcome.COULD_NOT_LOOK or not report.checks:
            why = "; ".join(f.message for f in report.findings) or "no check was run"
            raise InfrastructureError(f"the gate could not look at {draft.name}: {why}")
        decision = approval.decide(report, placebo_digest=self._placebo)
        word = "approved" if decision.approved else "refused"
        self._say(f"gate: {draft.name} {word}: {'; '.join(decision.reasons)}")
        return {**_shown(draft, report), **self._decided(decision)}

    def _decided(self, decision: approval.Decision) -> dict[str, Any]:
        return {
            **asdict(decision),
            "policy": approval.LABEL,
            "policy_digest": _policy_digest(),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def _policy_digest() -> str:
    return hashlib.sha256(Path(approval.__file__).read_bytes()).hexdigest()


def _shown(draft: Draft, report: Report) -> dict[str, Any]:
    return {
        "digest": draft.digest,
        "mechanism": draft.name,
        "evidence_digest": report.evidence_digest,
        "checks": {check.name: str(check.outcome) for check in report.checks},
        "findings": [
            f"{f.severity} {f.check}/{f.rule}: {f.message[:300]}" for f in report.findings
        ],
        "image_id": report.image_id,
        "posture": dict(report.posture),
        "versions": dict(report.versions),
        "seconds": report.seconds,
    }


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):  # cut short by a crash: that draft is screened again
            os.truncate(path, len(whole))
        rows = [json.loads(line) for line in whole.splitlines()]
        for row in rows:
            _verdict(row), str(row["policy_digest"])
        return rows
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArmsError(
            f"{path} is broken ({error!r}): remove it, and each draft is screened again"
        ) from None


def _verdict(row: Mapping[str, Any]) -> Verdict:
    return Verdict(
        digest=str(row["digest"]),
        approved=row["approved"] is True,
        reasons=tuple(row["reasons"]),
        let_through=tuple(row["let_through"]),
        evidence=str(row.get("evidence_digest", "")),
    )
