"""The commands about what the image is made of: its bill of materials, what is known against it.

python -m sandbox advisories [FILE] [--older]
python -m sandbox sbom [--out FILE]
python -m sandbox dependency PACKAGE==VERSION [--module MODULE[: NAME, ...]] [--wheels FOLDER]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from sandbox import advisories, depreq, opened, sbom, vulnerabilities
from sandbox.advisory_files import SnapshotError
from sandbox.errors import InfrastructureError
from sandbox.wheel_facts import RequestError

NOT_CLEAN = 1
COULD_NOT = 2


def add_parsers(commands: Any) -> None:
    """Add both commands to the command line."""
    known = commands.add_parser(
        "advisories",
        help="store a snapshot of advisories, and audit the image's lock: exit 0 clean, 1 "
        "vulnerable, 2 not scanned or old",
    )
    known.add_argument("file", type=Path, nargs="?", help="OSV records: JSON, gzip or zip")
    known.add_argument("--older", action="store_true", help="go back to an older snapshot")
    wanted = commands.add_parser(
        "dependency", help="the record of a request for a package: exit 1 if something is wrong"
    )
    wanted.add_argument("pin", metavar="PACKAGE==VERSION")
    wanted.add_argument("--wheels", type=Path, metavar="FOLDER", help="where its wheels lie")
    wanted.add_argument(
        "--module", action="append", default=[], metavar="MODULE[: NAME, ...]", dest="modules",
        help="what mechanisms could import of it",
    )  # fmt: skip
    bill = commands.add_parser("sbom", help="the image's bill of materials, as CycloneDX JSON")
    bill.add_argument("--out", type=Path, metavar="FILE", help="write it there")


def dependency_command(arguments: argparse.Namespace, progress: Callable[[str], None]) -> int:
    """Print the record of a request as JSON; exit 1 where something speaks against it."""
    now = datetime.now(UTC)
    try:
        modules = opened.parse("\n".join(arguments.modules))
        if arguments.wheels:
            made = depreq.request(arguments.pin, arguments.wheels, now=now, modules=modules)
        else:
            progress(f"fetching {arguments.pin} and what it needs")
            made = depreq.examine(arguments.pin, now=now, modules=modules)
    except (RequestError, opened.OpenedError, OSError) as error:
        raise InfrastructureError(f"there is no record: {error}") from error
    sys.stdout.write(json.dumps(made.to_data(), indent=1, sort_keys=True) + "\n")
    return NOT_CLEAN if made.problems else 0


def advisories_command(arguments: argparse.Namespace, progress: Callable[[str], None]) -> int:
    """Store, audit, and say what is known and how old that is."""
    out, now = Console(soft_wrap=True, highlight=False), datetime.now(UTC)
    where = advisories.folder()
    if arguments.file:
        progress(f"reading {arguments.file}")
        try:
            taken = advisories.store(arguments.file, into=where, now=now, older=arguments.older)
        except (SnapshotError, OSError) as error:
            raise InfrastructureError(f"the snapshot was not taken: {error}") from error
        progress(f"stored {taken.advisories} advisories about {taken.packages} packages")
    progress("auditing the image's lock")
    scan = vulnerabilities.current(where=where, now=now)
    for line in described(scan, now):
        out.print(line, markup=False)
    if scan.vulnerable:
        return NOT_CLEAN
    return 0 if scan.complete and not scan.stale(now) else COULD_NOT


def described(scan: vulnerabilities.Scan, now: datetime) -> list[str]:
    """A scan in words, a line each."""
    lines = []
    if scan.dated:
        old = f"{scan.age_days(now)} days old"
        stale = f": STALE, over {advisories.STALE_DAYS} days" if scan.stale(now) else ""
        lines.append(f"advisories from {scan.source} up to {scan.dated[:10]}, {old}{stale}")
    if scan.problem:
        return [*lines, f"NOT SCANNED: {scan.problem}"]
    for pin in scan.lock:
        name = advisories.normal(pin.partition("==")[0])
        known = ", ".join(one["id"] for one in scan.vulnerable.get(name, ()))
        unseen = f"NOT SCANNED: {scan.not_scanned[name]}" if name in scan.not_scanned else ""
        state = "; ".join(s for s in (f"VULNERABLE: {known}" if known else "", unseen) if s)
        lines.append(f"{pin}: {state or 'nothing known'}")
    return lines


def sbom_command(arguments: argparse.Namespace, _: Callable[[str], None]) -> int:
    """Write the bill, or print it."""
    if arguments.out:
        write(arguments.out, sbom.text())
    else:
        sys.stdout.write(sbom.text())
    return 0


def write(path: Path, text: str) -> None:
    """Write a file that was asked for; InfrastructureError where it can't be."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InfrastructureError(f"{path} can't be written: {error.strerror or error}") from error
