"""How a screening looked and by what it knew, in words: the sandbox's posture, the advisories.

Reads a report and the snapshot on this machine; judges nothing. What was not recorded is said to be
unknown, never left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.utils import timezone

from proposals import standing
from proposals.models import Screening
from sandbox import advisories, posture
from sandbox.advisory_files import SnapshotError

UNKNOWN = "not recorded"
WORDS = {
    "user": "It ran as an unprivileged user of its own",
    "capabilities": "It had no capabilities",
    "no new privileges": "It could not gain privileges",
    "seccomp": "System calls were filtered",
    "network": "It had no network but an empty loopback",
    "files": "It could write to no file",
    "environment": "It saw nothing of our environment",
    "limits of the process": "Files, core dumps and processor time were limited",
}


@dataclass(frozen=True, kw_only=True)
class Control:
    """One control of the sandbox: what it means, and whether the worker measured that it held."""

    name: str
    words: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class Advisories:
    """What the scan of the dependencies knew, and how old that is today."""

    words: str
    tone: str  # good, warn or bad
    now: str  # what is stored on this machine today, if it is something else


def limit_days() -> int | None:
    """How old advisories may be by the policy in force; None where there is no policy."""
    policy = standing.in_force().policy
    return policy.checks.freshness.advisories_days if policy else None


def snapshot(now: datetime | None = None) -> tuple[str, bool]:
    """The snapshot of advisories here, in words, and whether it is missing or too old.

    Raises SnapshotError, OSError.
    """
    found = advisories.current(advisories.folder())
    limit = limit_days() or advisories.STALE_DAYS
    if found is None:
        return "there is no snapshot of advisories: nothing is scanned for vulnerabilities", True
    days = found.age_days(now or datetime.now(UTC))
    words = (
        f"{found.advisories} advisories up to {found.dated[:10]}, {days} days old (limit {limit})"
    )
    return words, days > limit


def of(screening: Screening | None) -> dict[str, Any] | None:
    """Everything about how this screening looked; None where there is no report."""
    if screening is None or not screening.report:
        return None
    report = screening.report
    seen = report.get("posture") or {}
    return {
        "backend": str(seen.get("backend") or UNKNOWN),
        "engine": _engine(seen),
        "image_id": screening.image_id,
        "controls": list(_controls(seen)),
        "ran": bool(seen.get("self_report")),
        "advisories": _advisories(report.get("checks", [])),
        "versions": sorted((k, str(v)) for k, v in (report.get("versions") or {}).items()),
    }


def _engine(seen: Mapping[str, Any]) -> str:
    parts = [f"{key} {seen[key]}" for key in ("engine", "runtime", "kernel") if seen.get(key)]
    return ", ".join(parts)


def _controls(seen: Mapping[str, Any]) -> Iterator[Control]:
    measured = seen.get("self_report")
    if not isinstance(measured, dict):
        return
    for name, problem in posture.measure(measured, writable=()).items():
        yield Control(name=name, words=WORDS.get(name, name), problem=problem)


def _advisories(checks: list[dict[str, Any]]) -> Advisories:
    mine = next((c for c in checks if c["name"] == "dependencies"), {})
    known = mine.get("detail", {}).get("advisories")
    limit, here = limit_days() or advisories.STALE_DAYS, _here()
    if not isinstance(known, dict) or not known.get("dated"):
        why = str(known.get("problem") or "") if isinstance(known, dict) else ""
        words = f"Nobody looked for known vulnerabilities{f': {why}' if why else ''}"
        return Advisories(words=words, tone="warn", now=here)
    days = max((timezone.now() - advisories.parse_time(known["dated"])).days, 0)
    words = (
        f"{known.get('state', UNKNOWN)}: advisories up to {known['dated'][:10]}, "
        f"{days} days old today (the policy allows {limit})"
    )
    good = known.get("state") == "scanned" and days <= limit
    return Advisories(words=words, tone="good" if good else "warn", now=here)


def _here() -> str:
    try:
        return snapshot()[0]
    except (SnapshotError, OSError) as error:
        return f"the snapshot here can't be read: {error}"
