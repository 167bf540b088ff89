"""Deciding on a proposal: approve, reject, withdraw, expire; and who may.

Every approval binds to what `evidence.binding_of` names. A person approves once, independently,
having opened everything; the policy approves as an actor of its own, through the same door.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from audit import head
from audit.actors import SYSTEM, Actor, ActorKind
from audit.canonical import digest
from django.contrib.auth.models import User
from django.utils import timezone

from proposals import branches
from proposals.acts import Denied, Ledger, act, locked_proposal, policy_in_force, said
from proposals.facts import (
    approvals_of,
    binding_digest,
    binding_of,
    context_now,
    drift,
    evidence_of,
    screening_of,
    shown_required,
)
from proposals.models import PolicyVersion, Proposal, Review
from proposals.people import Account, actor_of, approval_problems, is_reviewer
from proposals.policy import Decision, Mode, Policy, judge
from proposals.screenings import cancel_open, void_all
from proposals.states import State, Verb

DENIAL = "review.denied"


def may_approve(person: Account, proposal: Proposal) -> list[str]:
    """Why this account may not approve this proposal now, in words; empty: it may."""
    version, policy = policy_in_force()
    found = [words for _, words in approval_problems(person, proposal, version, policy)]
    if problem := _not_now(proposal, version, policy):
        found.append(problem.message)
    return found


def _not_now(proposal: Proposal, version: PolicyVersion, policy: Policy) -> Denied | None:
    """Why nobody may approve it now, if so."""
    state = State(proposal.state)
    if proposal.reviews.filter(standing=Review.Standing.CONSUMED).exists():
        return Denied("already_used", "its approval was used: one approval, one activation")
    if state is State.EXPIRED or (
        state in {State.PASSED, State.APPROVED} and proposal.expires_at <= timezone.now()
    ):
        return Denied("expired", "nobody decided in time, and silence is no: submit it again")
    if state is State.APPROVED:
        return Denied("already_decided", "it has all its approvals; it is being activated")
    if state is not State.PASSED:
        return Denied(
            "wrong_state", f"it is {state.replace('_', ' ')}: there is nothing to approve"
        )
    if moved := drift(proposal, policy, version.digest):
        return Denied("stale", f"{'; '.join(moved)}: it must be screened again first")
    screening = screening_of(proposal)
    if screening is None or screening.verdict.get("decision") == Decision.DENY:
        return Denied("denied_by_policy", "the policy denies it: nobody may approve")
    return None


def approve(
    *, proposal_id: int, person: User, reason: str, binding_digest: str, shown: Mapping[str, str]
) -> Review:
    """One person's approval of exactly what `binding_digest` names."""
    subject = f"proposal:{proposal_id}"
    with act(actor=actor_of(person), tried="approve", subject=subject, denial=DENIAL) as ledger:
        proposal = locked_proposal(proposal_id)
        version, policy = policy_in_force()
        for code, words in approval_problems(person, proposal, version, policy):
            raise Denied(code, words)
        if problem := _not_now(proposal, version, policy):
            raise problem
        reason = said(reason)
        binding = binding_of(proposal)
        if digest(binding) != binding_digest:
            raise Denied("stale", "it changed since you opened the page: read it again")
        opened = {str(k): str(v) for k, v in shown.items()}
        unseen = [k for k, v in shown_required(proposal).items() if opened.get(k) != v]
        if unseen:
            raise Denied("not_shown", f"open these first: {', '.join(unseen[:20])}")
        review = _approval(ledger, proposal, policy, binding, reason, reviewer=person, shown=opened)
    return review


def approve_by_policy(*, proposal_id: int, log_problem: str) -> Review:
    """The policy's own approval, in guarded mode; judged again under lock. Raises Denied."""
    version, _ = policy_in_force()
    actor = policy_actor(version)
    subject = f"proposal:{proposal_id}"
    with act(actor=actor, tried="approve", subject=subject) as ledger:
        proposal = locked_proposal(proposal_id)
        head.lock()  # budgets span targets: one automatic approval at a time
        version, policy = policy_in_force()
        if version.digest != actor.id:
            raise Denied("stale", "another policy came into force")
        if problem := _not_now(proposal, version, policy):
            raise problem
        screening = screening_of(proposal)
        if screening is None or screening.verdict.get("decision") != Decision.ALLOW:
            raise Denied("not_entitled", "the verdict on record does not allow it")
        context = context_now(version.digest, log_problem=log_problem)
        verdict = judge(policy, evidence_of(proposal, screening), context)
        if not verdict.automatic or policy.mode_at(timezone.now()) is not Mode.GUARDED:
            raise Denied("not_entitled", "; ".join(verdict.reasons))
        words = "; ".join(verdict.reasons)
        review = _approval(
            ledger, proposal, policy, binding_of(proposal), words, by_policy=version.digest
        )
    return review


def policy_actor(version: PolicyVersion) -> Actor:
    """The policy as an actor of its own."""
    return Actor(kind=ActorKind.POLICY, id=version.digest, name=f"policy {version.digest[:12]}")


def _approval(
    ledger: Ledger,
    proposal: Proposal,
    policy: Policy,
    binding: dict[str, Any],
    reason: str,
    **who: Any,
) -> Review:
    expires_at = timezone.now() + timedelta(hours=policy.people.approval_hours)
    review = Review.objects.create(
        proposal=proposal,
        decision=Review.Decision.APPROVE,
        reason=reason,
        binding=binding,
        binding_digest=binding_digest(binding),
        expires_at=expires_at,
        **who,
    )
    ledger.created(review)
    if review.by_policy or quorum_met(proposal):
        ledger.proposal(proposal, Verb.APPROVE, reason)
    ledger.write(
        "review.approved",
        subject=f"proposal:{proposal.pk}",
        target=proposal.target.name,
        reason=reason,
        data={
            "proposal": proposal.pk,
            "review": review.pk,
            "binding": binding,
            "binding_digest": review.binding_digest,
            "expires_at": expires_at,
            "shown": digest(review.shown),
        },
    )
    return review


def quorum_met(proposal: Proposal) -> bool:
    """Whether as many different people approved as the verdict asks for."""
    screening = screening_of(proposal)
    if screening is None:
        return False
    people = {r.reviewer_id for r in approvals_of(proposal) if r.reviewer_id is not None}
    return len(people) >= max(1, int(screening.verdict["quorum"]))


def reject(*, proposal_id: int, person: User, reason: str) -> Review:
    """One reviewer's no, which is enough. Approvals so far are voided."""
    subject = f"proposal:{proposal_id}"
    with act(actor=actor_of(person), tried="reject", subject=subject, denial=DENIAL) as ledger:
        proposal = locked_proposal(proposal_id)
        _, policy = policy_in_force()
        if not is_reviewer(person, policy):
            raise Denied("not_entitled", f"only the group {policy.people.roles.review} may decide")
        if proposal.state not in {State.PASSED, State.APPROVED}:
            raise Denied("wrong_state", f"it is {proposal.state}: there is nothing to reject")
        reason = said(reason)
        _not_merged(proposal)
        binding = binding_of(proposal)
        void_all(ledger, proposal, f"rejected: {reason}")
        review = Review.objects.create(
            proposal=proposal,
            reviewer=person,
            decision=Review.Decision.REJECT,
            reason=reason,
            binding=binding,
            binding_digest=binding_digest(binding),
            expires_at=timezone.now() + timedelta(days=36500),
        )
        ledger.created(review)
        ledger.proposal(proposal, Verb.REJECT, reason)
        ledger.write(
            "review.rejected",
            subject=subject,
            target=proposal.target.name,
            reason=reason,
            data={
                "proposal": proposal.pk,
                "review": review.pk,
                "binding_digest": review.binding_digest,
            },
        )
    return review


def _not_merged(proposal: Proposal) -> None:
    """A crash between the merge and its record: let the worker finish it before anything else."""
    if branches.living().head() == proposal.commit:
        raise Denied("merging", "its merge is being recorded: try again in a few seconds")


def withdraw(*, proposal_id: int, person: User, reason: str) -> Proposal:
    """The requester takes the proposal back."""
    subject = f"proposal:{proposal_id}"
    with act(actor=actor_of(person), tried="withdraw", subject=subject) as ledger:
        proposal = locked_proposal(proposal_id)
        if not person.is_active or proposal.requester_id != person.pk:
            raise Denied("not_entitled", "only who requested it may withdraw it: reject it instead")
        reason = said(reason)
        cancel_open(ledger, proposal)
        void_all(ledger, proposal, f"withdrawn: {reason}")
        ledger.proposal(proposal, Verb.WITHDRAW, reason)
        ledger.write(
            "proposal.withdrawn",
            subject=subject,
            target=proposal.target.name,
            reason=reason,
            data={"proposal": proposal.pk},
        )
    return proposal


def expire(*, proposal_id: int) -> Proposal:
    """Silence is no: the platform ends what nobody decided in time."""
    subject = f"proposal:{proposal_id}"
    with act(actor=SYSTEM, tried="expire", subject=subject) as ledger:
        proposal = locked_proposal(proposal_id)
        if proposal.expires_at > timezone.now():
            raise Denied("wrong_state", f"it does not expire before {proposal.expires_at}")
        _not_merged(proposal)
        cancel_open(ledger, proposal)
        if proposal.state in {State.PASSED, State.APPROVED}:
            void_all(ledger, proposal, "the proposal expired")
        ledger.proposal(proposal, Verb.EXPIRE, "nobody decided in time")
        ledger.write(
            "proposal.expired",
            subject=subject,
            target=proposal.target.name,
            data={"proposal": proposal.pk},
        )
    return proposal


def void(*, proposal_id: int, reason: str) -> None:
    """The platform takes approvals back that no longer bind to what is there."""
    with act(actor=SYSTEM, tried="void", subject=f"proposal:{proposal_id}") as ledger:
        proposal = locked_proposal(proposal_id)
        _not_merged(proposal)
        void_all(ledger, proposal, reason)


def note_automatic(
    *, proposal_id: int, verb: str, mode: str, reasons: list[str], seen: str = ""
) -> None:
    """Record what the policy decided by itself, or would have: `autonomy.declined|shadowed`."""
    version, _ = policy_in_force()
    subject = f"proposal:{proposal_id}"
    with act(actor=policy_actor(version), tried=verb, subject=subject) as ledger:
        proposal = locked_proposal(proposal_id)
        proposal.automatic = {
            "verb": verb,
            "mode": mode,
            "reasons": reasons,
            "policy_digest": version.digest,
            "seen": seen,
            "at": timezone.now().isoformat(),
        }
        proposal.save(update_fields=["automatic", "changed_at"])
        ledger.write(
            verb,
            subject=subject,
            target=proposal.target.name,
            reason="; ".join(reasons),
            data={"proposal": proposal.pk, "reasons": reasons, "mode": mode},
        )
