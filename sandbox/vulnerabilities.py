"""What is known against the packages of the sandbox image: audited once, remembered, dated.

One audit for each lock and snapshot; a screening reads the answer. Where advisories come from is
the site's choice: the stored snapshot (as it is without a word), a service on the network or a
mirror. With none of them nothing was scanned, and that is what it says: never "nothing found".
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sandbox import advisories, image, pip_audit
from sandbox.advisories import Snapshot
from sandbox.advisory_files import SnapshotError
from sandbox.files import put
from sandbox.osv_endpoint import NoAnswerError, Service, Source
from sandbox.report import digest_of

ONLINE = "https://api.osv.dev/v1/query"
ONLINE_HOURS = 24
RETRY_MINUTES = 5
UPDATE = "python -m sandbox advisories FILE"


@dataclass(frozen=True, kw_only=True)
class Scan:
    """The state of one lock. `dated` is how far the advisories reach; empty: there are none."""

    lock: tuple[str, ...]
    source: str = "none"  # `snapshot`, `online` or a mirror's address
    snapshot: str = ""  # its digest
    dated: str = ""
    problem: str = ""  # why nothing at all was scanned
    vulnerable: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    not_scanned: Mapping[str, str] = field(default_factory=dict)

    @property
    def lock_digest(self) -> str:
        """The identity of the lock."""
        return lock_digest(self.lock)

    @property
    def complete(self) -> bool:
        """Whether every package was looked at."""
        return not self.problem and not self.not_scanned

    def age_days(self, now: datetime) -> int:
        """Whole days since the newest advisory; 0 where there is none."""
        return max((now - advisories.parse_time(self.dated)).days, 0) if self.dated else 0

    def stale(self, now: datetime) -> bool:
        """Whether what it knows ends too long ago."""
        return self.age_days(now) > advisories.STALE_DAYS

    def to_data(self, now: datetime) -> dict[str, Any]:
        """Plain JSON data for a report and for people."""
        state = "not scanned" if not self.complete else "stale" if self.stale(now) else "scanned"
        return {
            **asdict(self),
            "lock": list(self.lock),
            "lock_digest": self.lock_digest,
            "state": state,
            "age_days": self.age_days(now),
        }


def lock_digest(lock: Sequence[str]) -> str:
    """SHA-256 of a lock's lines."""
    return digest_of("\n".join(lock).encode())


def current(
    lock: Sequence[str] | None = None,
    *,
    where: Path | None = None,
    setting: str | None = None,
    now: datetime | None = None,
    audit: Callable[[Sequence[str], Source], pip_audit.Audit] = pip_audit.audit,
) -> Scan:
    """The scan of the image's lock by the source in force; a second's work the first time.

    Never raises for what a source or pip-audit does: that is "not scanned", with its reason.
    """
    lock = tuple(image.pins() if lock is None else lock)
    where = advisories.folder() if where is None else where
    setting = os.environ.get("ESCAPEMENT_ADVISORY_SOURCE", "") if setting is None else setting
    now = now or datetime.now(UTC)
    try:
        if setting in {"", "snapshot"}:
            snapshot = advisories.current(where)
            if snapshot is None:
                return Scan(lock=lock, problem=f"there is no snapshot of advisories: {UPDATE}")
            return _by_snapshot(lock, where, snapshot, now, audit)
        return _by_service(lock, where, setting, now, audit)
    except (SnapshotError, NoAnswerError, OSError, ValueError) as error:
        return Scan(lock=lock, source=setting or "snapshot", problem=str(error)[:500])


def _by_snapshot(
    lock: tuple[str, ...],
    where: Path,
    snapshot: Snapshot,
    now: datetime,
    audit: Callable[[Sequence[str], Source], pip_audit.Audit],
) -> Scan:
    def look() -> Scan:
        done = audit(lock, advisories.load(where, snapshot))
        return Scan(
            lock=lock,
            source="snapshot",
            snapshot=snapshot.digest,
            dated=snapshot.dated,
            vulnerable=done.vulnerable,
            not_scanned=done.not_scanned,
        )

    return _once(lock, where, snapshot.digest, keep=None, now=now, look=look)


def _by_service(
    lock: tuple[str, ...],
    where: Path,
    setting: str,
    now: datetime,
    audit: Callable[[Sequence[str], Source], pip_audit.Audit],
) -> Scan:
    def look() -> Scan:
        service = Service(ONLINE if setting == "online" else setting)
        service.probe()
        done = audit(lock, service)
        return Scan(
            lock=lock,
            source=setting,
            dated=now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            vulnerable=done.vulnerable,
            not_scanned=done.not_scanned,
        )

    return _once(lock, where, setting, keep=timedelta(hours=ONLINE_HOURS), now=now, look=look)


# --- once for each lock and source ---


def _once(
    lock: tuple[str, ...],
    where: Path,
    key: str,
    *,
    keep: timedelta | None,
    now: datetime,
    look: Callable[[], Scan],
) -> Scan:
    """The remembered scan, or a new one that is remembered; one at a time on this machine.

    `keep` is for how long a complete one counts (None: for good, as nothing can change it); an
    incomplete one is tried again after a few minutes.
    """
    try:
        tool = importlib.metadata.version("pip-audit")
    except importlib.metadata.PackageNotFoundError:
        return Scan(lock=lock, problem="pip-audit is missing: install the platform's requirements")
    path = where / "audits" / f"{digest_of(f'{lock_digest(lock)} {key} {tool}'.encode())}.json"
    if (found := _remembered(path, lock, keep, now)) is not None:
        return found
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path.parent):
        if (found := _remembered(path, lock, keep, now)) is not None:
            return found
        scan = look()
        data = {"at": now.timestamp(), "scan": asdict(scan)}
        put(path, json.dumps(data, sort_keys=True).encode())
        return scan


def _remembered(
    path: Path, lock: tuple[str, ...], keep: timedelta | None, now: datetime
) -> Scan | None:
    try:
        data = json.loads(path.read_bytes())
        scan = Scan(**{**data["scan"], "lock": tuple(data["scan"]["lock"])})
        age = now - datetime.fromtimestamp(data["at"], UTC)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # nothing remembered, or damaged: look again
    limit = keep if scan.complete else timedelta(minutes=RETRY_MINUTES)
    if scan.lock != lock or (limit is not None and not timedelta(0) <= age <= limit):
        return None
    return scan


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
