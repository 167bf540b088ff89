"""What a screening takes and gives: Draft, Finding, CheckResult, Report.

Plain values with one canonical JSON form, whose SHA-256 is the *evidence digest* that an approval
binds to. This is not a judge: `sandbox.screen` runs the checks, the platform's policy decides.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

MAX_FILE_BYTES = 64 * 1024
MAX_DRAFT_BYTES = 128 * 1024


class DraftError(ValueError):
    """A draft that can't even be screened; `code` is stable, the message says what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Outcome(StrEnum):
    """Ordered from best to worst; a report's outcome is the worst of its checks'."""

    PASSED = "passed"
    FAILED = "failed"
    COULD_NOT_LOOK = "could_not_look"
    SKIPPED = "skipped"  # not run because an earlier check failed; never counts as passed


class Severity(StrEnum):
    ERROR = "error"  # fails the check
    WARNING = "warning"  # shown to the reviewer
    NOTE = "note"


@dataclass(frozen=True, kw_only=True)
class Draft:
    """The files of one mechanism: repository path -> bytes. See `sandbox.draft` for the rules."""

    mechanism_path: str
    files: Mapping[str, bytes]

    @property
    def name(self) -> str:
        """The mechanism's name: the stem of its file."""
        return self.mechanism_path.rsplit("/", 1)[-1].removesuffix(".py")

    @property
    def source(self) -> bytes:
        """The exact bytes of the mechanism's file: what is loaded."""
        return self.files[self.mechanism_path]

    @property
    def tests(self) -> dict[str, bytes]:
        """The draft's own unit tests."""
        return {p: b for p, b in self.files.items() if p != self.mechanism_path}

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the mechanism's bytes; the identity of a mechanism everywhere."""
        return digest_of(self.source)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a check saw. `rule` is stable (`import-not-allowed`, `TIMEOUT`, `inert` ...);
    `why` says why it matters, for a person who reads it for the first time."""

    check: str
    rule: str
    severity: Severity
    message: str
    path: str = ""
    line: int = 0
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """One check's outcome, findings and details (plain JSON data); `seconds` is wall time."""

    name: str
    outcome: Outcome
    findings: tuple[Finding, ...] = ()
    seconds: float = 0.0
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Report:
    """The whole result of one screening of one draft on one image.

    `detail` of the check `replay` is what the reviewer sees as "what would have been different".
    `posture` records image id, flags, backend and the worker's self-report.
    """

    mechanism: str
    digest: str
    checks: tuple[CheckResult, ...]
    image_id: str
    posture: Mapping[str, Any]
    versions: Mapping[str, str]
    seconds: float = 0.0

    @property
    def outcome(self) -> Outcome:
        """`failed` if any check failed, else `could_not_look` if any could not, else `passed`.

        A report without any check, or whose checks were all skipped, could not look.
        """
        outcomes = {c.outcome for c in self.checks}
        if Outcome.FAILED in outcomes:
            return Outcome.FAILED
        if not outcomes or Outcome.COULD_NOT_LOOK in outcomes or Outcome.SKIPPED in outcomes:
            return Outcome.COULD_NOT_LOOK
        return Outcome.PASSED

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, in the order of the checks."""
        return tuple(f for c in self.checks for f in c.findings)

    def check(self, name: str) -> CheckResult | None:
        """The result of the check of that name, if it was part of the screening."""
        return next((c for c in self.checks if c.name == name), None)

    def to_data(self) -> dict[str, Any]:
        """The report as plain JSON data, outcome included."""
        return {**asdict(self), "outcome": self.outcome}

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, no NaN."""
        return json.dumps(self.to_data(), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @property
    def evidence_digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON."""
        return digest_of(self.to_json().encode())


def digest_of(data: bytes) -> str:
    """SHA-256 of `data` as lower-case hex."""
    return hashlib.sha256(data).hexdigest()
