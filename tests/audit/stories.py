"""Logs to verify: a builder that needs no database, and the walk of one proposal as entries."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from audit import canonical, merkle, verifier
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

START = datetime(2026, 1, 1, tzinfo=UTC)
SYSTEM = {"kind": "system", "id": "platform", "name": "platform"}
RUNNER = {"kind": "runner", "id": "1", "name": "demo-runner"}
ADA = {"kind": "person", "id": "1", "name": "ada"}
GRACE = {"kind": "person", "id": "2", "name": "grace"}
LINUS = {"kind": "person", "id": "3", "name": "linus"}
POLICY_TEXT = "version: 1\n"
POLICY = verifier.sha256(POLICY_TEXT.encode())
SOURCE = b"# a mechanism\n"
DIGEST = verifier.sha256(SOURCE)
SEED_DIGEST = verifier.sha256(b"# the seed\n")

Act = dict[str, Any]


def move(of: str, before: str, to: str) -> dict[str, str]:
    return {"of": of, "from": before, "to": to}


def act(actor: Act, verb: str, subject: str, data: Act, *, target: str = "demo") -> Act:
    return {"actor": actor, "verb": verb, "subject": subject, "target": target, "data": data}


def binding(**more: Any) -> Act:
    bound = {
        "proposal": 1,
        "target": "demo",
        "commit": "c" * 40,
        "tree": "7" * 40,
        "base_commit": "b" * 40,
        "digest": DIGEST,
        "evidence_digest": "e" * 64,
        "policy_digest": POLICY,
        "image_id": "sha256:1",
        "mode": "manual",
    }
    return {**bound, **more}


def approval(actor: Act, review: int, *moves: Act, bound: Act | None = None, **more: Any) -> Act:
    bound = bound or binding()
    data = {
        "proposal": 1,
        "review": review,
        "binding": bound,
        "binding_digest": canonical.digest(bound),
        "expires_at": canonical.utc(START + timedelta(days=3)),
        "moves": [move(f"review:{review}", "", "valid"), *moves],
    }
    return act(actor, "review.approved", "proposal:1", {**data, **more})


def requested(number: int, kind: str, digest: str, *moves: Act, **more: Any) -> Act:
    data = {
        "activation": number,
        "version": number,
        "kind": kind,
        "proposal": None,
        "mechanism": "null",
        "commit": "c" * 40,
        "digest": digest,
        "approvals": [],
        "binding_digest": "",
        "restores": None,
        "moves": [*moves, move(f"activation:{number}", "", "activating")],
    }
    return act(SYSTEM, "activation.requested", "target:demo", {**data, **more})


def live(number: int, digest: str, *moves: Act, proposal: int | None = None) -> Act:
    data = {
        "activation": number,
        "version": number,
        "proposal": proposal,
        "digest": digest,
        "digest_attested": digest,
        "runner": "demo-runner",
        "at_trial": 3,
        "moves": [move(f"activation:{number}", "activating", "live"), *moves],
    }
    return act(RUNNER, "activation.live", "target:demo", data)


def walk() -> list[Act]:
    """One proposal from the door to its rollback, as it must be. Indexes are named in WALK."""
    verdict = {"decision": "escalate", "quorum": 2, "risk": "high", "automatic": False}
    submitted = {
        **{k: binding()[k] for k in ("proposal", "commit", "tree", "base_commit", "digest")},
        "draft_id": "d",
        "name": "tabu_two",
        "title": "t",
        "branch": "proposals/1",
        "base_digest": SEED_DIGEST,
        "generator": "catalog",
        "requester": {"id": "3", "name": "linus"},
        "operator": {"id": "3", "name": "linus"},
        "moves": [move("proposal:1", "", "submitted")],
    }
    screened = {
        "proposal": 1,
        "screening": 1,
        "commit": "c" * 40,
        "outcome": "passed",
        "evidence_digest": "e" * 64,
        "image_id": "sha256:1",
        "policy_digest": POLICY,
        "verdict": {**verdict, "reasons": []},
        "moves": [move("proposal:1", "screening", "passed")],
    }
    loaded = {"digest": POLICY, "mode": "manual", "editor": {"id": "9", "name": "barbara"}}
    started = {"proposal": 1, "screening": 1, "attempt": 1}
    taken = {"activation": 2, "restores": 1, "proposal": 1}
    return [
        act(SYSTEM, "policy.loaded", f"policy:{POLICY[:12]}", loaded, target=""),
        requested(1, "seed", SEED_DIGEST),
        live(1, SEED_DIGEST),
        act(RUNNER, "proposal.submitted", "proposal:1", submitted),
        act(
            SYSTEM,
            "screening.started",
            "proposal:1",
            {**started, "moves": [move("proposal:1", "submitted", "screening")]},
        ),
        act(SYSTEM, "screening.finished", "proposal:1", screened),
        approval(ADA, 1),
        approval(GRACE, 2, move("proposal:1", "passed", "approved")),
        requested(
            2,
            "approval",
            DIGEST,
            move("proposal:1", "approved", "activating"),
            move("review:1", "valid", "consumed"),
            move("review:2", "valid", "consumed"),
            proposal=1,
            approvals=[1, 2],
            binding_digest=canonical.digest(binding()),
        ),
        live(
            2,
            DIGEST,
            move("activation:1", "live", "superseded"),
            move("proposal:1", "activating", "live"),
            proposal=1,
        ),
        act(
            LINUS,
            "target.rolled_back",
            "target:demo",
            {
                **taken,
                "moves": [
                    move("activation:2", "live", "rolled_back"),
                    move("proposal:1", "live", "rolled_back"),
                ],
            },
        ),
        requested(3, "rollback", SEED_DIGEST, restores=1),
        live(3, SEED_DIGEST),
    ]


(LOADED, SEEDED, SEED_LIVE, SUBMITTED, STARTED, SCREENED, FIRST, SECOND) = range(8)
(ACTIVATED, LIVE, TAKEN, RESTORED, RESTORED_LIVE) = range(8, 13)


class Log:
    """A signed log in memory, and what somebody may do to its stored rows."""

    def __init__(self, acts: list[Act] | None = None, *, every: timedelta | None = None) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.public = self.key.public_key().public_bytes_raw().hex()
        self.rows: list[tuple[str, dict[str, Any]]] = []
        self.notes: list[str] = []
        self.head: dict[str, Any] | None = None
        self._frontier: list[bytes] = []
        self._step = every or timedelta(seconds=1)
        for one in acts or []:
            self.add(one)

    def add(self, one: Act) -> None:
        seq = len(self.rows) + 1
        body = {
            "v": 1,
            "seq": seq,
            "prev": self.rows[-1][1]["digest"] if self.rows else "0" * 64,
            "at": canonical.utc(START + seq * self._step),
            "reason": "",
            **copy.deepcopy(one),
        }
        self.rows.append(self.row(body))
        digest = self.rows[-1][1]["digest"]
        self._frontier = merkle.grow(self._frontier, seq - 1, bytes.fromhex(digest))
        self.sign(digest)
        if one["verb"] in verifier.CHECKPOINT_VERBS or seq % verifier.CHECKPOINT_EVERY == 0:
            self.note(digest)

    @staticmethod
    def row(body: Act) -> tuple[str, dict[str, Any]]:
        """The stored row of an entry, everything recomputed."""
        raw = canonical.encode(body)
        columns = {k: body[k] for k in ("seq", "prev", "at", "verb", "subject", "target", "reason")}
        columns |= {f"actor_{k}": v for k, v in body["actor"].items()}
        return raw.decode(), {**columns, "digest": merkle.leaf_hash(raw).hex()}

    def body(self, seq: int) -> Act:
        return dict(json.loads(self.rows[seq - 1][0]))

    def sign(self, digest: str) -> None:
        head: dict[str, Any] = {
            "size": len(self.rows),
            "hash": digest,
            "root": merkle.root(self._frontier).hex(),
            "key": self.public,
        }
        signature = self.key.sign(verifier.head_bytes(**head)).hex()
        self.head = {**head, "signature": signature}

    def note(self, digest: str) -> str:
        root = base64.b64encode(merkle.root(self._frontier)).decode()
        text = (
            f"{verifier.NOTE_ORIGIN}\n{len(self.rows)}\n{root}\n"
            f"head {digest}\nat {canonical.utc(START)}\nkey {self.public}\n"
        )
        signed = verifier.key_id(self.public) + self.key.sign(text.encode())
        line = base64.b64encode(signed).decode()
        self.notes.append(f"{text}\n\u2014 {verifier.NOTE_ORIGIN} {line}\n")
        return self.notes[-1]

    def rechain(self, start: int) -> None:
        """What a forger without the key does: recompute everything from entry `start` on."""
        for seq in range(start, len(self.rows) + 1):
            body = {**self.body(seq), "seq": seq}
            body["prev"] = self.rows[seq - 2][1]["digest"] if seq > 1 else "0" * 64
            self.rows[seq - 1] = self.row(body)

    def verify(self, **more: Any) -> verifier.Result:
        values = {"entries": self.rows, "head": self.head, "notes": self.notes}
        return verifier.verify(**{**values, "key": self.public, **more})


def plain_log(size: int) -> Log:
    """A log of log-ins."""
    people = (ADA, GRACE, LINUS)
    acts = [act(people[n % 3], "auth.login", f"user:{n}", {"n": n}, target="") for n in range(size)]
    return Log(acts)


def kinds(result: verifier.Result) -> set[str]:
    return {str(p.kind) for p in result.problems}


Change = Callable[[list[Act]], None]
