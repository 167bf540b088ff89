"""Known vulnerabilities as a snapshot on disk: read, validated, stored, matched to a version.

A snapshot is a file of OSV records (a JSON list, `{"vulns": [...]}`, gzip of either, or a zip with
one record per file as OSV gives them out). It is taken whole or not at all: a record that can't be
understood and were left out would read as "nothing known". Nothing here asks the network, and a
snapshot says nothing about what was found after its date: its age is always shown.
"""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from sandbox.advisory_files import SnapshotError, SnapshotProblem, read_records
from sandbox.files import put
from sandbox.report import digest_of

STALE_DAYS = 30
MAX_TEXT_CHARS = 300
ROOT = Path(__file__).resolve().parents[1]
META = "snapshot.json"
UNDERSTOOD_RANGES = ("ECOSYSTEM", "SEMVER")
TIME = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.\d+)?(?:Z|\+00:00)")


class Age(StrEnum):
    """How old what a snapshot knows is."""

    FRESH = "fresh"
    STALE = "stale"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What is stored, without the advisories themselves. `dated` is the newest change in it."""

    digest: str
    dated: str
    advisories: int
    packages: int
    source: str  # the file's name
    stored: str

    def age_days(self, now: datetime) -> int:
        """Whole days since its newest advisory changed."""
        return max((now - parse_time(self.dated)).days, 0)

    def age(self, now: datetime) -> Age:
        """Whether that is too long ago."""
        return Age.STALE if self.age_days(now) > STALE_DAYS else Age.FRESH


def folder() -> Path:
    """Where snapshots and audits live: below the installation's var folder."""
    var = os.environ.get("ESCAPEMENT_VAR") or ROOT / "var"
    return Path(os.environ.get("ESCAPEMENT_ADVISORIES") or Path(var) / "advisories")


def normal(name: str) -> str:
    """A package's one name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


# --- storing and loading ---


def store(file: Path, *, into: Path, now: datetime, older: bool = False) -> Snapshot:
    """Check a snapshot and put it in the place of the earlier one. SnapshotError: nothing changed.

    One whose newest advisory is older than the stored one's is refused unless `older`.
    """
    records = [r for r in map(_record, read_records(file)) if r is not None]
    if not records:
        raise SnapshotError(
            SnapshotProblem.EMPTY, f"{file.name} has no advisory about a package of PyPI."
        )
    records.sort(key=lambda r: str(r["id"]))
    data = json.dumps(records, sort_keys=True, separators=(",", ":")).encode()
    dated = max(str(r["modified"]) for r in records)
    if parse_time(dated) > now + timedelta(days=1):
        raise SnapshotError(
            SnapshotProblem.FUTURE,
            f"{file.name} has an advisory of {dated}, which is not yet: check the clock and file.",
        )
    snapshot = Snapshot(
        digest=digest_of(data),
        dated=dated,
        advisories=len(records),
        packages=len({a["name"] for r in records for a in r["affected"]}),
        source=file.name[:200],
        stored=now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    earlier = None if older else _earlier(into)
    if earlier and earlier.dated > snapshot.dated:
        raise SnapshotError(
            SnapshotProblem.OLDER,
            f"{file.name} ends on {snapshot.dated}, the stored snapshot on {earlier.dated}: the "
            "newer one stays. Say --older to go back on purpose.",
        )
    into.mkdir(parents=True, exist_ok=True)
    put(into / f"{snapshot.digest}.json.gz", gzip.compress(data, mtime=0))
    put(into / META, json.dumps(asdict(snapshot), indent=1, sort_keys=True).encode())
    return snapshot


def current(where: Path) -> Snapshot | None:
    """What is stored; None: nothing. SnapshotError where something is there and unreadable."""
    try:
        data = json.loads((where / META).read_bytes())
        snapshot = Snapshot(**data)
        parse_time(snapshot.dated)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise SnapshotError(
            SnapshotProblem.DAMAGED, f"{where / META} can't be read ({error}): store one again."
        ) from error
    return snapshot


def load(where: Path, snapshot: Snapshot) -> Advisories:
    """The advisories of the stored snapshot, checked against its digest."""
    path = where / f"{snapshot.digest}.json.gz"
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, ValueError) as error:
        raise SnapshotError(
            SnapshotProblem.DAMAGED, f"{path} can't be read ({error}): store the snapshot again."
        ) from error
    if digest_of(data) != snapshot.digest:
        raise SnapshotError(
            SnapshotProblem.DAMAGED, f"{path} is not what was stored: store the snapshot again."
        )
    return Advisories(json.loads(data))


def _earlier(into: Path) -> Snapshot | None:
    try:
        return current(into)
    except SnapshotError:
        return None  # a damaged one must not stand in the way of a sound one


# --- records ---


def record(data: Any) -> dict[str, Any] | None:
    """An OSV record reduced to what is used; None: withdrawn, or not about PyPI.

    SnapshotError `wrong_shape` for whatever is not understood.
    """
    return _record(("the answer", data))


def _record(named: tuple[str, Any]) -> dict[str, Any] | None:
    where, data = named
    try:
        return _reduce(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SnapshotError(
            SnapshotProblem.WRONG_SHAPE,
            f"{where[:200]} is no OSV record ({type(error).__name__}: {error}). Nothing was taken.",
        ) from None


def _reduce(data: Any) -> dict[str, Any] | None:
    if type(data) is not dict:
        raise ValueError(f"a {type(data).__name__}, not an object")
    major = str(data.get("schema_version", "1")).split(".", maxsplit=1)[0]
    if major != "1":
        raise ValueError(f"schema {data['schema_version']} is unknown")
    identity, modified = _text(data["id"]), _utc(data["modified"])
    if data.get("withdrawn") is not None:
        return None
    affected = [_affected(a) for a in _list(data["affected"]) if _about_pypi(a)]
    if not affected:
        return None
    return {
        "id": identity,
        "aliases": sorted(map(_text, _list(data.get("aliases") or []))),
        "modified": modified,
        "published": _utc(data.get("published") or data["modified"]),
        "summary": " ".join(str(data.get("summary") or data.get("details") or "").split())[
            :MAX_TEXT_CHARS
        ],
        "affected": affected,
    }


def _about_pypi(affected: Any) -> bool:
    return "package" not in affected or affected["package"]["ecosystem"].split(":")[0] == "PyPI"


def _affected(data: Mapping[str, Any]) -> dict[str, Any]:
    ranges = []
    for one in _list(data.get("ranges") or []):
        if one["type"] in UNDERSTOOD_RANGES:
            ranges.append([[_text(k), _text(v)] for e in one["events"] for k, v in e.items()])
    return {
        "name": normal(_text(data["package"]["name"])),
        "versions": [_text(v) for v in _list(data.get("versions") or [])],
        "ranges": ranges,
    }


def _text(value: Any) -> str:
    if type(value) is not str or not value.strip():
        raise ValueError(f"{value!r} is no text")
    return value


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise ValueError(f"a {type(value).__name__}, not a list")
    return value


def _utc(value: Any) -> str:
    """A timestamp without fractions: what pip-audit can read."""
    found = TIME.fullmatch(_text(value))
    if not found:
        raise ValueError(f"{value!r} is no time")
    text = f"{found[1]}T{found[2]}Z"
    parse_time(text)
    return text


def parse_time(text: str) -> datetime:
    """`2024-10-10T00:00:00Z` as a time."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


# --- matching ---


class Advisories:
    """Advisories by package."""

    def __init__(self, records: Iterable[Mapping[str, Any]]) -> None:
        self._by_package: dict[str, list[Mapping[str, Any]]] = {}
        for one in records:
            for name in sorted({a["name"] for a in one["affected"]}):
                self._by_package.setdefault(name, []).append(one)

    def of(self, package: str, version: str) -> list[Mapping[str, Any]]:
        """The advisories that a version is affected by."""
        name = normal(package)
        return [
            one
            for one in self._by_package.get(name, [])
            if any(a["name"] == name and affects(a, version) for a in one["affected"])
        ]


def affects(affected: Mapping[str, Any], version: str) -> bool:
    """Whether a version is among the affected ones.

    A version or a range that can't be compared, and an advisory that names no version at all,
    count as affected.
    """
    try:
        mine = Version(version)
        if any(_same(mine, one) for one in affected["versions"]):
            return True
        if not affected["versions"] and not affected["ranges"]:
            return True
        return any(_in_range(mine, events) for events in affected["ranges"])
    except InvalidVersion:
        return True


def _same(mine: Version, other: str) -> bool:
    try:
        return mine == Version(other)
    except InvalidVersion:
        return False  # an old name of a version that nothing can be pinned to any more


def _in_range(mine: Version, events: Iterable[Iterable[str]]) -> bool:
    """The evaluation that the OSV schema defines, events in order of their versions."""
    ordered = sorted(
        ((Version("0.dev0") if at == "0" else Version(at), kind) for kind, at in events),
        key=lambda event: (event[0], event[1] == "introduced"),
    )
    inside = False
    for at, kind in ordered:
        if kind == "introduced" and mine >= at:
            inside = True
        elif (kind == "fixed" and mine >= at) or (kind == "last_affected" and mine > at):
            inside = False
    return inside
