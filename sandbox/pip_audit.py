"""pip-audit over a lock, with nothing taken on trust: not its exit code, not its silence.

It fails open in many ways (no answer, a skipped package, a record of another schema, a package
that a marker drops), so what counts is what the endpoint saw: every package of the lock was asked
for and answered, and every advisory that was answered is in the result. Whatever is not so is
"not scanned", with its reason.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.advisories import normal
from sandbox.osv_endpoint import Source, Witness, fixed_in, serve

SECONDS = 120
MAX_REPORT_BYTES = 16 * 1024 * 1024
COMMAND = (sys.executable, "-I", "-m", "pip_audit")
OPTIONS = (
    *("--strict", "--vulnerability-service", "osv", "--no-deps", "--disable-pip"),
    *("--format", "json", "--progress-spinner", "off", "--timeout", "30"),
)


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What is known about each package of a lock, and of which nothing is."""

    vulnerable: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    not_scanned: Mapping[str, str] = field(default_factory=dict)  # package -> why


def audit(lock: Iterable[str], source: Source, command: tuple[str, ...] = COMMAND) -> Audit:
    """Audit `name==version` lines against a source of advisories."""
    pins = dict(_pin(line) for line in lock)
    with serve(source) as witness, tempfile.TemporaryDirectory(prefix="escapement-audit-") as place:
        reported, problem = _run(pins, witness.url, Path(place), command)
    return _compare(pins, witness, reported, problem)


def _pin(line: str) -> tuple[str, str]:
    name, _, version = line.partition("==")
    if not name or not version or not version.strip() or " " in version.strip():
        raise ValueError(f"{line!r} is not name==version")
    return normal(name.strip()), version.strip()


def _run(
    pins: Mapping[str, str], url: str, place: Path, command: tuple[str, ...]
) -> tuple[dict[str, Any], str]:
    """pip-audit's entries by package, and why there are none."""
    lock, report = place / "lock.txt", place / "report.json"
    lock.write_text("".join(f"{n}=={v}\n" for n, v in pins.items()), encoding="utf-8")
    whole = [*command, *OPTIONS, "--osv-url", url, "--requirement", str(lock)]
    whole += ["--output", str(report), "--cache-dir", str(place / "cache")]
    # No proxy, no index, no PIP_AUDIT_* option of whoever started us gets through to it.
    environment = {"HOME": str(place), "PATH": "/usr/bin:/bin", "NO_PROXY": "*"}
    try:
        done = subprocess.run(  # noqa: S603 - fixed words and files of our own
            whole, capture_output=True, timeout=SECONDS, check=False, cwd=place, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {}, f"pip-audit gave no answer: {error}"[:300]
    try:
        if report.stat().st_size > MAX_REPORT_BYTES:
            raise ValueError("its report is too large")
        entries = json.loads(report.read_bytes())["dependencies"]
        return {normal(entry["name"]): entry for entry in entries}, ""
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()[-200:]
        return {}, f"pip-audit left no report (exit {done.returncode}): {said}"


def _compare(
    pins: Mapping[str, str], witness: Witness, reported: Mapping[str, Any], problem: str
) -> Audit:
    vulnerable: dict[str, list[dict[str, Any]]] = {}
    not_scanned: dict[str, str] = {}
    for name, version in pins.items():
        served = witness.answered.get((name, version))
        if served:
            vulnerable[name] = [_shown(one, name) for one in served]
        elif (name, version) in witness.unanswered:
            not_scanned[name] = witness.unanswered[name, version]
        elif served is None:
            not_scanned[name] = problem or "pip-audit never asked about it"
        if name not in not_scanned:
            why = problem or _doubt(name, version, reported.get(name), served or [])
            if why:
                not_scanned[name] = why
    return Audit(vulnerable=vulnerable, not_scanned=not_scanned)


def _doubt(name: str, version: str, entry: Any, served: list[Any]) -> str:
    """Why pip-audit's entry does not show that the package was looked at; empty: it does."""
    if type(entry) is not dict:
        return "it is missing in pip-audit's report"
    if entry.get("skip_reason"):
        return f"pip-audit skipped it: {entry['skip_reason']}"[:300]
    if entry.get("version") != version or type(entry.get("vulns")) is not list:
        return "pip-audit's report is about another version, or none"
    told = {i for v in entry["vulns"] for i in (v["id"], *v.get("aliases", []))}
    lost = [one["id"] for one in served if one["id"] not in told]
    return f"pip-audit left out {', '.join(lost)}" if lost else ""


def _shown(one: Mapping[str, Any], package: str) -> dict[str, Any]:
    return {
        "id": one["id"],
        "aliases": list(one["aliases"]),
        "summary": one["summary"],
        "fixed_in": fixed_in(one, package),
    }
