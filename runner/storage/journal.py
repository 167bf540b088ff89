"""The runner's own durable memory: what was planned, measured and decided, and what the platform
has not yet acknowledged.

A trial goes through three phases, each on the disk before anything else happens: `planned` (what
will be trained, and the mechanism's state after it chose), `measured` (what came out), `decided`
(kept or not, and the mechanism's state after it saw the trial). A runner that was killed picks up
exactly there: a planned trial is trained again under the same number, a measured one is not, a
decided one is history. Randomness comes from `derive`, so the second attempt equals the first.

Nothing is decided here (`runner.loop.search` does) and nothing is sent
(`runner.control.platform_link` does).
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from runner.interfaces import Outcome, Steering
from runner.protocol import Desired, HookCounts, RunReport
from runner.storage.store import JournalError, Store, dumps
from sandbox.mechanism import Config, Trial

BASELINE = 0


class Phase(StrEnum):
    """How far a trial got."""

    PLANNED = "planned"
    MEASURED = "measured"
    DECIDED = "decided"


class Report(StrEnum):
    """Whether the platform has it. `REFUSED` is final: it said why, and that is on record."""

    WAITING = "waiting"
    SENT = "sent"
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One trial as the journal knows it; what is not known in its phase is empty. `repeats`: all
    measurements, where `metric` is their mean; empty for a trial that was measured once."""

    number: int
    phase: Phase
    config: Config
    changes: Config
    reason: str = ""
    mechanism: str = ""
    digest: str = ""
    version: int = 0
    hooks: HookCounts = field(default_factory=HookCounts)
    metric: float | None = None
    failure: str = ""
    message: str = ""
    seconds: float = 0.0
    status: Literal["kept", "discarded", "failed"] | None = None
    best_metric: float | None = None
    repeats: tuple[float, ...] = ()
    finished_at: datetime | None = None

    def trial(self) -> Trial:
        """The trial as mechanisms see it. Raises ValueError if it is not decided."""
        if self.status is None:
            raise ValueError(f"trial {self.number} is not decided")
        return Trial(
            number=self.number,
            config=self.config,
            changes=self.changes,
            metric=self.metric,
            status=self.status,
            failure=self.failure,
            seconds=self.seconds,
            mechanism=self.digest,
            measurements=max(len(self.repeats), 1),
        )


def derive(seed: int, number: int, purpose: str) -> int:
    """A seed for one purpose of one trial: the same in a resumed run, independent otherwise."""
    text = f"{seed}/{number}/{purpose}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big") & 0x7FFFFFFF


class Journal:
    """The durable memory of one run, in one folder."""

    def __init__(self, folder: Path, *, committed: Callable[[], None] | None = None) -> None:
        """Open or create; see `Store`. Raises JournalError."""
        self.folder = folder
        self.store = Store(folder, committed=committed)
        self._decided: list[Entry] = []  # what is decided never changes: the first ones, read once

    def close(self) -> None:
        """Let go of the folder. Safe to call twice."""
        self.store.close()

    # --- identity ---

    def identify(self, *, task: str, task_digest: str, seed: int | None) -> None:
        """Claim the folder for this run, or make sure that it is this run's.

        Raises JournalError if it belongs to another task (other trainer, data, budget ...) or seed,
        or is a copy of a run that is still there.
        """
        known = self.store.get("identity")
        if known is None:
            known = {
                "run_id": str(uuid.uuid4()),
                "task": task,
                "task_digest": task_digest,
                "seed": seed or 0,
                "started_at": datetime.now(UTC).isoformat(),
            }
            self.store.put("identity", known)
        if (known["task"], known["task_digest"]) != (task, task_digest):
            raise JournalError(
                f"{self.folder} holds a run of task {known['task']} ({known['task_digest'][:12]}), "
                f"not of {task} ({task_digest[:12]}): their metrics can't be compared. "
                "Choose another --out"
            )
        if seed is not None and seed != known["seed"]:
            raise JournalError(
                f"{self.folder} holds a run with seed {known['seed']}, not {seed}: "
                "leave --seed away to resume it, or choose another --out"
            )
        self.store.settle_place(run_id=known["run_id"])

    def _identity(self) -> dict[str, Any]:
        found = self.store.get("identity")
        if found is None:
            raise JournalError("identify() comes first")
        return dict(found)

    @property
    def run_id(self) -> str:
        """The run's UUID."""
        return str(self._identity()["run_id"])

    @property
    def seed(self) -> int:
        """The run's seed: all randomness of the run derives from it."""
        return int(self._identity()["seed"])

    @property
    def started_at(self) -> datetime:
        """When the run was started for the first time."""
        return datetime.fromisoformat(self._identity()["started_at"])

    def bind(self, public_key: str) -> None:
        """Tie the run to one platform: versions of another would mean something else."""
        if self.store.get("platform", public_key) != public_key:
            raise JournalError(
                f"{self.folder} holds a run of another platform (other public key): "
                "choose another --out"
            )
        self.store.put("platform", public_key)

    # --- the baseline (its repeats: `runner.loop.measurements`) ---

    def set_baseline(self, entry: Entry, *, noise: Mapping[str, Any]) -> None:
        """Store trial 0, decided, with the noise that the run decides by."""
        with self.store.transaction() as db:
            self._insert(db, entry)
            self.store.put("noise", dict(noise))

    @property
    def sigma(self) -> float | None:
        """The noise: standard deviation of one training's metric; None while it is not known."""
        found = (self.store.get("noise") or {}).get("sigma")
        return None if found is None else float(found)

    # --- trials ---

    def plan(self, entries: Sequence[Entry], *, state: Mapping[str, Any] | None) -> None:
        """Store trials that are about to be trained (or were refused before training: such come
        as `measured` failures), and the state of the mechanism that chose them, if it gave one."""
        with self.store.transaction() as db:
            for entry in entries:
                self._insert(db, entry)
            if state is not None:
                self._snapshot(db, entries[-1].digest, entries[-1].number, state)

    def measure(self, number: int, outcome: Outcome) -> None:
        """Store what the training of a planned trial gave."""
        query = (
            "UPDATE trials SET phase = 'measured', metric = ?, failure = ?, message = ?, "
            "seconds = ? WHERE number = ? AND phase = 'planned'"
        )
        values = (outcome.metric, outcome.failure, outcome.message, outcome.seconds, number)
        with self.store.transaction() as db:
            self._one(db.execute(query, values), f"trial {number} is not planned")

    def decide(
        self, entry: Entry, *, judge: str, state: Mapping[str, Any] | None, failures: int
    ) -> None:
        """Store the decision on a measured trial. `judge` is the digest of the mechanism that was
        asked (the one that chose it, unless that could not be loaded any more): its state
        afterwards, and how many times in a row it has failed by now."""
        query = (
            "UPDATE trials SET phase = 'decided', status = ?, metric = ?, repeats = ?, "
            "seconds = ?, best_metric = ?, hooks = ?, message = ?, finished_at = ? "
            "WHERE number = ? AND phase = 'measured'"
        )
        values = (
            entry.status,
            entry.metric,
            dumps(list(entry.repeats)),
            entry.seconds,
            entry.best_metric,
            entry.hooks.model_dump_json(),
            entry.message,
            datetime.now(UTC).isoformat(),
            entry.number,
        )
        with self.store.transaction() as db:
            self._one(db.execute(query, values), f"trial {entry.number} is not measured")
            self.store.put("failures", {"digest": judge, "count": failures})
            if state is not None:
                self._snapshot(db, judge, entry.number, state)

    def failures(self, digest: str) -> int:
        """How many times in a row the mechanism has failed."""
        found = self.store.get("failures", {"digest": "", "count": 0})
        return int(found["count"]) if found["digest"] == digest else 0

    def forgive(self) -> None:
        """Begin to count failures anew."""
        self.store.put("failures", {"digest": "", "count": 0})

    def decided(self) -> list[Entry]:
        """Every decided trial, oldest first."""
        known = self._decided
        query = "SELECT * FROM trials WHERE phase = 'decided' AND number >= ? ORDER BY number"
        found = known + [entry_of(row) for row in self.store.rows(query, len(known))]
        if len(found) > len(known) and found[-1].number == len(found) - 1:  # without a gap
            self._decided = found
        return list(found)

    def pending(self) -> list[Entry]:
        """Trials that are planned or measured, in order."""
        query = "SELECT * FROM trials WHERE phase != 'decided' ORDER BY number"
        return [entry_of(row) for row in self.store.rows(query)]

    def count(self) -> int:
        """How many trials are decided, the baseline included."""
        return int(self.store.rows("SELECT COUNT(*) FROM trials WHERE phase = 'decided'")[0][0])

    @staticmethod
    def _insert(db: sqlite3.Connection, entry: Entry) -> None:
        row = {
            "number": entry.number,
            "phase": entry.phase,
            "config": dumps(dict(entry.config)),
            "changes": dumps(dict(entry.changes)),
            "reason": entry.reason,
            "mechanism": entry.mechanism,
            "digest": entry.digest,
            "version": entry.version,
            "hooks": entry.hooks.model_dump_json(),
            "metric": entry.metric,
            "failure": entry.failure,
            "message": entry.message,
            "seconds": entry.seconds,
            "status": entry.status,
            "best_metric": entry.best_metric,
            "repeats": dumps(list(entry.repeats)),
            "finished_at": entry.finished_at.isoformat() if entry.finished_at else None,
        }
        names, marks = ", ".join(row), ", ".join(f":{name}" for name in row)
        db.execute(f"INSERT INTO trials ({names}) VALUES ({marks})", row)  # noqa: S608 - our names

    @staticmethod
    def _one(cursor: sqlite3.Cursor, problem: str) -> None:
        if cursor.rowcount != 1:
            raise JournalError(problem)

    # --- the mechanism's state and the steering ---

    @staticmethod
    def _snapshot(
        db: sqlite3.Connection, digest: str, after: int, state: Mapping[str, Any]
    ) -> None:
        text = json.dumps(dict(state), allow_nan=False)  # in its own order, which may matter to it
        db.execute("INSERT OR REPLACE INTO states VALUES (?, ?, ?)", (digest, after, text))

    def state_of(self, digest: str) -> dict[str, Any] | None:
        """The last state that this very mechanism left behind, or None."""
        found = self.store.rows("SELECT state FROM states WHERE digest = ?", digest)
        return dict(json.loads(found[0][0])) if found else None

    def steer(self, after_trial: int, steering: Steering) -> None:
        """Store what Level 1.5 decided after a trial."""
        value = {
            "frozen": sorted(steering.frozen),
            "guidance": steering.guidance,
            "reasons": list(steering.reasons),
        }
        with self.store.transaction() as db:
            db.execute("INSERT INTO steering VALUES (?, ?)", (after_trial, dumps(value)))

    def steering(self) -> tuple[int, Steering]:
        """The steering in force and the trial after which it was decided (0: none yet)."""
        rows = self.store.rows("SELECT * FROM steering ORDER BY after_trial DESC LIMIT 1")
        if not rows:
            return 0, Steering(frozen=frozenset(), guidance="")
        value = json.loads(rows[0]["value"])
        steering = Steering(
            frozen=frozenset(value["frozen"]),
            guidance=value["guidance"],
            reasons=tuple(value["reasons"]),
        )
        return int(rows[0]["after_trial"]), steering

    # --- what the platform wants, and what it has not acknowledged ---

    def remember_desired(self, desired: Desired) -> None:
        """Store the last desired state that was loaded: what a restarted runner loads first."""
        self.store.put("desired", desired.model_dump(mode="json"))

    def desired(self) -> Desired | None:
        """The last desired state that was loaded; its signature is checked again before use."""
        found = self.store.get("desired")
        return None if found is None else Desired.model_validate(found)

    def set_run_report(self, report: RunReport) -> None:
        """Store the report of the run itself; it waits to be sent if it changed."""
        body = report.model_dump(mode="json")
        if self.store.get("run_report") != body:
            with self.store.transaction():
                self.store.put("run_report", body)
                self.store.put("run_report_state", Report.WAITING)

    def waiting_run_report(self) -> RunReport | None:
        """The report of the run, if the platform does not have it yet."""
        if self.store.get("run_report_state") != Report.WAITING:
            return None
        return RunReport.model_validate(self.store.get("run_report"))

    def run_report_done(self, sent: RunReport, state: Report) -> None:
        """Note that the platform took or refused the report, unless it changed meanwhile."""
        with self.store.transaction():
            if self.store.get("run_report") == sent.model_dump(mode="json"):
                self.store.put("run_report_state", state)

    def waiting_trials(self, limit: int) -> list[Entry]:
        """The oldest decided trials that the platform does not have."""
        query = "SELECT * FROM trials WHERE phase = 'decided' AND report = 'waiting'"
        rows = self.store.rows(f"{query} ORDER BY number LIMIT ?", limit)
        return [entry_of(row) for row in rows]

    def trials_done(self, numbers: Iterable[int], state: Report) -> None:
        """Note that the platform took or refused these trials."""
        with self.store.transaction() as db:
            db.executemany(
                "UPDATE trials SET report = ? WHERE number = ?", [(state, n) for n in numbers]
            )

    def report_anew(self) -> None:
        """Have the run and all that the platform had acknowledged of it sent once more."""
        with self.store.transaction() as db:
            self.store.put("run_report_state", Report.WAITING)
            db.execute("UPDATE trials SET report = 'waiting' WHERE report = 'sent'")


def entry_of(row: sqlite3.Row) -> Entry:
    """A row of the table `trials`."""
    finished = row["finished_at"]
    return Entry(
        number=row["number"],
        phase=Phase(row["phase"]),
        config=MappingProxyType(json.loads(row["config"])),
        changes=MappingProxyType(json.loads(row["changes"])),
        reason=row["reason"],
        mechanism=row["mechanism"],
        digest=row["digest"],
        version=row["version"],
        hooks=HookCounts.model_validate_json(row["hooks"]),
        metric=row["metric"],
        failure=row["failure"],
        message=row["message"],
        seconds=row["seconds"],
        status=row["status"],
        best_metric=row["best_metric"],
        repeats=tuple(json.loads(row["repeats"])),
        finished_at=datetime.fromisoformat(finished) if finished else None,
    )
