"""What Level 2 has drafted, and what this runner attested: the rest of the durable memory.

A draft is due, then drafted (or not), then submitted, and its fate on the platform is remembered:
later drafts must know it. Attestations are kept for ever, in order. Nothing is sent here.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

from runner.interfaces import ResearchDraft
from runner.protocol import (
    LEVEL2_OUTCOMES,
    DraftSubmission,
    Level2Report,
    Observed,
    OutcomeReport,
    Round,
    Submitted,
)
from runner.storage.journal import Journal, Report
from runner.storage.store import Store, dumps
from sandbox.report import digest_of


class DraftState(StrEnum):
    """How far a draft got, as this runner knows it."""

    DUE = "due"  # Level 2 has to look at the trace as it was after this trial
    NONE = "none"  # it looked, and selected no mechanism
    FAILED = "failed"  # it could not draft: `reason` says why
    WAITING = "waiting"  # drafted, not yet taken by the platform
    SUBMITTED = "submitted"  # the platform has it; `remote` is its state there
    REFUSED = "refused"  # not worth submitting, or refused at the platform's door: final
    LOCAL = "local"  # drafted by a run without a platform: only written to the folder


_OUTCOMES = {
    DraftState.DUE: "drafting",
    DraftState.NONE: "none_selected",
    DraftState.FAILED: "failed",
    DraftState.REFUSED: "refused",
}
REMOTE_FINAL = frozenset(
    {"rejected", "failed", "withdrawn", "expired", "superseded", "rolled_back", "voided", "refused"}
)


@dataclass(frozen=True, kw_only=True)
class DraftEntry:
    """One row: what was drafted after which trial, and what became of it."""

    draft_id: str
    after_trial: int
    state: DraftState
    draft: ResearchDraft | None = None
    base_commit: str = ""
    base_digest: str = ""
    proposal: int | None = None
    reason: str = ""
    remote: str = ""
    resubmitted: bool = False

    def submission(self, run_id: str) -> DraftSubmission:
        """The draft as it is sent. Raises ValueError if it breaks the wire's limits."""
        if self.draft is None:
            raise ValueError(f"draft {self.draft_id} has no content")
        return DraftSubmission(
            draft_id=self.draft_id,
            run_id=run_id,
            title=self.draft.title,
            summary=self.draft.summary,
            files=dict(self.draft.files),
            base_commit=self.base_commit,
            base_digest=self.base_digest,
            generator=self.draft.generator,
            operator=self.draft.operator,
            parameters=dict(self.draft.parameters),
            diagnosis=dict(self.draft.diagnosis),
            rounds=list(self.draft.rounds),
            after_trial=self.after_trial,
        )

    def recalled(self) -> dict[str, Any]:
        """What a later Level 2 should know of it: name, source, digest, state, reason, operator."""
        files = {} if self.draft is None else self.draft.files
        path = next((p for p in files if p.startswith("mechanisms/")), "")
        return {
            "name": PurePosixPath(path).stem if path else "",
            "source": files[path] if path else "",
            "digest": digest_of(files[path].encode()) if path else "",
            "state": self.remote or str(self.state),
            "reason": self.reason,
            "operator": self.draft.operator if self.draft else "",
            "parameters": dict(self.draft.parameters) if self.draft else {},
            "after_trial": self.after_trial,
        }


class DraftMemo:
    """`interfaces.Memo`, in the journal."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def get(self, key: str) -> dict[str, Any] | None:
        """What was put there, or None."""
        found: dict[str, Any] | None = self._store.get(self._prefix + key)
        return found

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Keep plain data."""
        self._store.put(self._prefix + key, value)

    def forget(self) -> None:
        """The draft is done."""
        with self._store.transaction() as db:
            db.execute(
                "DELETE FROM meta WHERE substr(key, 1, ?) = ?", (len(self._prefix), self._prefix)
            )


class Drafts:
    """Drafts and attestations of one run, in its journal's database."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.store = journal.store

    # --- drafts ---

    def due(self, after_trial: int) -> None:
        """Note that Level 2 has to look at the trace as it was after this trial (idempotent)."""
        draft_id = str(uuid.uuid5(uuid.UUID(self.journal.run_id), f"draft/{after_trial}"))
        with self.store.transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO drafts (draft_id, after_trial, state) VALUES (?, ?, ?)",
                (draft_id, after_trial, DraftState.DUE),
            )

    def drafted(self, draft_id: str, draft: ResearchDraft, *, commit: str, digest: str) -> None:
        """Store a finished draft with the base that it was written against ("": no platform)."""
        state = DraftState.WAITING if commit else DraftState.LOCAL
        body = {
            "title": draft.title,
            "summary": draft.summary,
            "files": dict(draft.files),
            "operator": draft.operator,
            "parameters": dict(draft.parameters),
            "diagnosis": dict(draft.diagnosis),
            "rounds": [r.model_dump() for r in draft.rounds],
            "generator": draft.generator,
        }
        with self.store.transaction():
            self._update(
                draft_id, state=state, draft=dumps(body), base_commit=commit, base_digest=digest
            )
            self._told(draft_id, generator=draft.generator, title=draft.title)
            self.memo(draft_id).forget()

    def not_drafted(
        self,
        draft_id: str,
        state: DraftState,
        reason: str,
        *,
        generator: str,
        title: str = "",
        rule: str = "",
    ) -> None:
        """Store that there is no draft: NONE, FAILED or REFUSED, with the class of the reason."""
        with self.store.transaction():
            self._update(draft_id, state=state, reason=reason)
            self._told(draft_id, generator=generator, title=title, rule=rule)
            self.memo(draft_id).forget()

    def memo(self, draft_id: str) -> DraftMemo:
        """What is kept of a draft until it is done."""
        return DraftMemo(self.store, f"drafting/{draft_id}/")

    def _told(self, draft_id: str, *, generator: str, title: str, rule: str = "") -> None:
        told = {"generator": generator, "title": title, "rule": rule}
        self.store.put(f"level2/{draft_id}", {"at": datetime.now(UTC).isoformat(), **told})

    def level2(self) -> Level2Report:
        """What Level 2 did, for people; without the drafts themselves, which may be large."""
        count = self.store.rows("SELECT COUNT(*) FROM drafts")[0][0]
        query = (
            "SELECT draft_id, after_trial, state, reason FROM drafts "
            "ORDER BY after_trial DESC LIMIT ?"
        )
        rows = self.store.rows(query, LEVEL2_OUTCOMES)
        return Level2Report(looks=count, outcomes=[self._outcome(row) for row in reversed(rows)])

    def _outcome(self, row: sqlite3.Row) -> OutcomeReport:
        told = self.store.get(f"level2/{row['draft_id']}", {})
        outcome = _OUTCOMES.get(DraftState(row["state"]), "drafted")
        return OutcomeReport.model_validate(
            {
                "draft_id": row["draft_id"],
                "after_trial": row["after_trial"],
                "outcome": outcome,
                "generator": told.get("generator", "")[:200],
                "title": told.get("title", "")[:200],
                # Of a proposal, the platform knows better what became of it.
                "reason": "" if outcome == "drafted" else row["reason"][:1000],
                "at": told.get("at"),
            }
        )

    def submitted(self, answer: Submitted) -> None:
        """Store what the platform says of a draft."""
        self._update(
            answer.draft_id,
            state=DraftState.SUBMITTED,
            proposal=answer.proposal,
            remote=answer.state,
            reason=answer.reason,
        )

    def refused(self, draft_id: str, reason: str) -> None:
        """Store that the platform's door refused a draft, for good."""
        self._update(draft_id, state=DraftState.REFUSED, reason=reason)

    def rebased(self, draft_id: str, commit: str) -> None:
        """Store a new base for a draft that waits; happens once at most."""
        self._update(draft_id, base_commit=commit, resubmitted=1)

    def all(self, *states: DraftState) -> list[DraftEntry]:
        """Drafts in these states (all without any), oldest first."""
        wanted = states or tuple(DraftState)
        marks = ", ".join("?" for _ in wanted)
        query = f"SELECT * FROM drafts WHERE state IN ({marks}) ORDER BY after_trial"  # noqa: S608
        return [_draft(row) for row in self.store.rows(query, *wanted)]

    def open_on_platform(self) -> list[DraftEntry]:
        """Submitted drafts whose fate is still open."""
        return [d for d in self.all(DraftState.SUBMITTED) if d.remote not in REMOTE_FINAL]

    def _update(self, draft_id: str, **columns: object) -> None:
        names = ", ".join(f"{name} = ?" for name in columns)
        with self.store.transaction() as db:
            db.execute(
                f"UPDATE drafts SET {names} WHERE draft_id = ?",  # noqa: S608 - our own names
                (*columns.values(), draft_id),
            )

    # --- attestations ---

    def attest(self, observed: Observed) -> None:
        """Store an attestation; it waits to be sent."""
        with self.store.transaction() as db:
            db.execute("INSERT INTO attestations (body) VALUES (?)", (observed.model_dump_json(),))

    def waiting_attestations(self) -> list[tuple[int, Observed]]:
        """Attestations that the platform has not acknowledged, oldest first."""
        query = "SELECT id, body FROM attestations WHERE report = 'waiting' ORDER BY id"
        return [(r["id"], Observed.model_validate_json(r["body"])) for r in self.store.rows(query)]

    def attestation_done(self, key: int, state: Report) -> None:
        """Note that the platform took or refused it."""
        with self.store.transaction() as db:
            db.execute("UPDATE attestations SET report = ? WHERE id = ?", (state, key))

    # --- counting what the platform lacks ---

    def backlog(self) -> Mapping[str, int]:
        """How much waits to be acknowledged, by kind."""
        counts = {
            "trials": "SELECT COUNT(*) FROM trials WHERE phase='decided' AND report='waiting'",
            "attestations": "SELECT COUNT(*) FROM attestations WHERE report='waiting'",
            "drafts": "SELECT COUNT(*) FROM drafts WHERE state='waiting'",
        }
        return {kind: int(self.store.rows(query)[0][0]) for kind, query in counts.items()}


def earlier_drafts(drafts: Iterable[DraftEntry]) -> tuple[dict[str, Any], ...]:
    """What earlier drafts were and what became of them, for Level 2; of one that was refused before
    it was submitted, the reason alone."""
    told = [d for d in drafts if d.draft is not None or d.state is DraftState.REFUSED]
    return tuple(d.recalled() for d in told)


def _draft(row: sqlite3.Row) -> DraftEntry:
    draft = None
    if row["draft"] is not None:
        body = json.loads(row["draft"])
        rounds = tuple(Round.model_validate(r) for r in body["rounds"])
        draft = ResearchDraft(**{**body, "rounds": rounds})
    return DraftEntry(
        draft_id=row["draft_id"],
        after_trial=row["after_trial"],
        state=DraftState(row["state"]),
        draft=draft,
        base_commit=row["base_commit"],
        base_digest=row["base_digest"],
        proposal=row["proposal"],
        reason=row["reason"],
        remote=row["remote"],
        resubmitted=bool(row["resubmitted"]),
    )
