"""The two ways a sandbox job ends badly: the candidate's fault, or ours.

They never mix: a `MechanismFailure` is a finding against a mechanism, an `InfrastructureError`
means that nobody could look, and must never be counted for or against anything.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class Rule(StrEnum):
    """Why a mechanism failed; stable names, shown to people and stored in reports."""

    TIMEOUT = "TIMEOUT"
    OOM = "OOM"
    OUTPUT_LIMIT = "OUTPUT_LIMIT"
    PROTOCOL_ERROR = "PROTOCOL_ERROR"
    CRASHED = "CRASHED"
    IMPORT_FAILED = "IMPORT_FAILED"
    INTERFACE = "INTERFACE"
    RAISED = "RAISED"
    TOO_MANY_ASKS = "TOO_MANY_ASKS"
    TOO_MANY_CANDIDATES = "TOO_MANY_CANDIDATES"
    STATE_TOO_LARGE = "STATE_TOO_LARGE"
    VIEW_CHANGED = "VIEW_CHANGED"
    TESTS_FAILED = "TESTS_FAILED"
    NO_TESTS = "NO_TESTS"


class MechanismFailure(Exception):
    """The candidate's fault. `rule` is a `Rule`; `detail` may hold line, traceback, output ..."""

    def __init__(self, rule: str, message: str, **detail: Any) -> None:
        super().__init__(f"{rule}: {message}")
        self.rule = str(rule)
        self.message = message
        self.detail: dict[str, Any] = detail


class InfrastructureError(Exception):
    """The sandbox's fault: nobody could look. The message names the fix."""


class ImageMissing(InfrastructureError):
    """The image that workers run is not there: never built, or removed. It can be made again from
    what is locked, with the same content."""
