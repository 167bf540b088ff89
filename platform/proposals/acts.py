"""What verbs of the lifecycle are made of: one transaction, moves, denials, the policy in force.

`act` opens the transaction, turns what is not allowed into `Denied`, and puts the denial on the
audit log in a transaction of its own. A `Ledger` is the only thing that changes a state: it asks
the table, assigns, saves, and keeps the move for the audit entry. Verbs are in the files beside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from audit import log
from audit.actors import Actor
from audit.canonical import plain, text
from django.db import IntegrityError, transaction
from django.utils import timezone
from runs.models import Target

from proposals.models import Activation, OperatorEntry, PolicyVersion, Proposal, Review
from proposals.policy import Policy, parse
from proposals.states import IllegalTransition, State, Verb, after

MAX_REASON_CHARS = 4000


class Denied(Exception):
    """A verb that is not allowed; `code` is stable, the message says what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass
class Ledger:
    """State changes of one verb, for the audit entry that tells of them."""

    actor: Actor
    moves: list[dict[str, str]] = field(default_factory=list)

    def proposal(self, proposal: Proposal, verb: Verb, reason: str = "") -> None:
        """Move a proposal along the table. Raises IllegalTransition."""
        before = State(proposal.state)
        proposal.state = after(before, verb)
        proposal.state_reason = reason[:MAX_REASON_CHARS]
        proposal.save()
        self._note(f"proposal:{proposal.pk}", before, proposal.state)

    def created(self, row: Proposal | Activation | Review) -> None:
        """Note a row that was just made."""
        kind = type(row).__name__.lower()
        self._note(f"{kind}:{row.pk}", "", row.standing if isinstance(row, Review) else row.state)

    def activation(self, activation: Activation, state: Activation.State, reason: str = "") -> None:
        """Move an activation; the caller knows that it may."""
        before = activation.state
        activation.state = state
        if state is not Activation.State.LIVE:
            activation.ended_at = timezone.now()
        if reason:
            activation.reason = reason[:MAX_REASON_CHARS]
        activation.save()
        self._note(f"activation:{activation.pk}", before, state)

    def consume(self, review: Review, activation: Activation) -> None:
        """Use a valid approval up."""
        self._standing(review, Review.Standing.CONSUMED, consumed_by=activation)

    def void(self, review: Review, reason: str) -> None:
        """Take a valid review back."""
        self._standing(review, Review.Standing.VOIDED, void_reason=reason[:MAX_REASON_CHARS])

    def operator(self, entry: OperatorEntry, standing: OperatorEntry.Standing) -> None:
        """Save an entry of the library with a standing; the verb knows that it may (`library`)."""
        before = entry.standing if entry.pk else ""
        entry.standing = standing
        entry.save()
        self._note(f"operator:{entry.pk}", before, standing)

    def _standing(self, review: Review, standing: Review.Standing, **fields: Any) -> None:
        changed = Review.objects.filter(pk=review.pk, standing=Review.Standing.VALID).update(
            standing=standing, **fields
        )
        if not changed:
            raise Denied("already_used", "this approval was used or voided meanwhile")
        review.refresh_from_db()
        self._note(f"review:{review.pk}", Review.Standing.VALID, standing)

    def _note(self, of: str, before: str, to: str) -> None:
        self.moves.append({"of": of, "from": str(before), "to": str(to)})

    def write(
        self,
        verb: str,
        *,
        subject: str,
        target: str = "",
        reason: str = "",
        data: Mapping[str, Any] | None = None,
        actor: Actor | None = None,
    ) -> None:
        """Append the audit entry, with the moves since the last one."""
        told = dict(data or {})
        if self.moves:
            told["moves"] = self.moves
        self.moves = []
        log.append(
            actor=actor or self.actor,
            verb=verb,
            subject=subject,
            target=target,
            reason=reason[:MAX_REASON_CHARS],
            data=plain(told),
        )

    def close(self) -> None:
        """Raise if a state changed and nobody told the log."""
        if self.moves:
            raise RuntimeError(f"moves without an audit entry: {self.moves}")


@contextmanager
def act(
    *, actor: Actor, tried: str, subject: str, target: str = "", denial: str = "action.denied"
) -> Iterator[Ledger]:
    """One verb: everything in it happens and is logged, or nothing is, and the denial is logged."""
    try:
        with transaction.atomic(durable=True):
            ledger = Ledger(actor)
            yield ledger
            ledger.close()
    except Denied as denied:
        record_denial(denied, actor=actor, tried=tried, subject=subject, target=target, verb=denial)
        raise
    except (IllegalTransition, IntegrityError) as error:
        if isinstance(error, IntegrityError):
            problem = Denied("conflict", f"somebody else was faster: look again ({error})")
        else:
            problem = Denied("wrong_state", f"{error}: look again, it moved on")
        record_denial(
            problem, actor=actor, tried=tried, subject=subject, target=target, verb=denial
        )
        raise problem from error


def record_denial(
    denied: Denied, *, actor: Actor, tried: str, subject: str, target: str = "", verb: str
) -> None:
    """Put a refusal on the log, in a transaction of its own."""
    data: dict[str, Any] = {"tried": tried, "code": denied.code, "message": denied.message[:1000]}
    if subject.startswith("proposal:"):
        data["proposal"] = int(subject.removeprefix("proposal:"))
    with transaction.atomic(durable=True):
        log.append(actor=actor, verb=verb, subject=subject, target=target, data=plain(data))


def allowed(verb: Callable[[], object]) -> bool:
    """Run a verb that the platform tries by itself; False where it was denied. The denial is on
    the log by then, and means that somebody was faster or that it was not its time."""
    try:
        verb()
    except Denied:
        return False
    return True


def said(reason: str) -> str:
    """A person's reason as every database can hold it, or Denied: decisions are explained."""
    reason = text(reason.strip())
    if not reason:
        raise Denied("no_reason", "say why, in a few words: the reason goes on the record")
    if len(reason) > MAX_REASON_CHARS:
        raise Denied("too_long", f"at most {MAX_REASON_CHARS} characters of reason")
    return reason


def locked_proposal(proposal_id: int) -> Proposal:
    """The proposal, its target locked before it: everybody locks in this order."""
    target_id = Proposal.objects.filter(pk=proposal_id).values_list("target", flat=True).first()
    if target_id is None:
        raise Denied("unknown", f"there is no proposal {proposal_id}")
    locked_target(target_id)
    rows = Proposal.objects.select_for_update(of=("self",))
    return rows.select_related("target", "runner", "requester").get(pk=proposal_id)


def locked_target(target_id: int) -> Target:
    """The target, locked."""
    target = Target.objects.select_for_update().filter(pk=target_id).first()
    if target is None:
        raise Denied("unknown", f"there is no target {target_id}")
    return target


def policy_in_force() -> tuple[PolicyVersion, Policy]:
    """The newest policy. Raises Denied where there is none: nobody may do anything."""
    version = PolicyVersion.objects.select_related("editor").first()
    if version is None:
        raise Denied("no_policy", "no policy is loaded: run `manage.py init`")
    return version, parse(version.text)
