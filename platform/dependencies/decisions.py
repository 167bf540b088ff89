"""Deciding on a request for a package: who may, what an approval binds to, approve and reject.

An approval names the request, the record that was shown (wheels, hashes, licences, advisories),
the lock before and after, and the policy. If any moves, it is void.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from audit.actors import SYSTEM
from audit.canonical import digest
from django.contrib.auth.models import User
from django.utils import timezone
from proposals.acts import Denied, act, policy_in_force, said
from proposals.people import Account, actor_of, is_reviewer
from proposals.policy import Policy

from dependencies import adopted, moves, verbs
from dependencies.models import DependencyRequest, DependencyReview
from dependencies.states import State, Verb
from sandbox import lock as locks

FOREVER = timedelta(days=36500)


def policy_problems(policy: Policy, record: dict[str, Any]) -> list[str]:
    """Why nobody may approve what this record tells of, by the policy and by itself."""
    rules, scan = policy.dependencies, record.get("scan", {})
    found = list(record.get("blockers", []))
    if rules.vulnerable == "deny":
        found += [
            f"{name} is known to be vulnerable: {', '.join(one['id'] for one in known)}"
            for name, known in sorted(scan.get("vulnerable", {}).items())
        ]
    if rules.not_scanned == "deny" and scan.get("state") != "scanned":
        found.append(f"it is {scan.get('state', 'not scanned')} for known vulnerabilities")
    for package in sorted({w["package"] for w in record.get("wheels", [])}):
        words = {w["licence"] for w in record["wheels"] if w["package"] == package}
        if words == {""} or len(words) > 1:
            if rules.unknown_licence == "deny" or rules.licences:
                found.append(f"the licence of {package} is not known")
        elif rules.licences and not words <= set(rules.licences):
            found.append(f"the licence of {package}, {words.pop()}, is not among the allowed ones")
    return found


def binding_of(request: DependencyRequest) -> dict[str, Any]:
    """What an approval of the request names, as it is now. Raises Denied."""
    version, policy = policy_in_force()
    if not request.record_digest:
        raise Denied("wrong_state", "it has no record yet: there is nothing to approve")
    return {
        "dependency": request.pk,
        "package": request.package,
        "version": request.version,
        "record_digest": request.record_digest,
        "lock_before": request.lock_before,
        "lock_after": request.lock_after,
        "policy_digest": version.digest,
        "quorum": policy.dependencies.quorum,
    }


def drift(request: DependencyRequest) -> str:
    """Why the record does not fit what is there now; empty: it fits."""
    in_force = adopted.digest_in_force() or locks.seed().digest
    if request.lock_before != in_force:
        return "the lock changed since its record was made"
    return ""


def conflicts(person: Account, request: DependencyRequest) -> list[tuple[str, str]]:
    """Why this account may not approve this request: (code, words); empty: it may."""
    version, policy = policy_in_force()
    if not isinstance(person, User) or not is_reviewer(person, policy):
        return [("not_entitled", f"only the group {policy.people.roles.review} may decide")]
    found = []
    if request.requester_id == person.pk:
        found.append(("is_requester", "you asked for it: someone else must decide"))
    if version.editor_id == person.pk:
        found.append(("edited_policy", "you edited the policy in force: someone else must decide"))
    if any(r.reviewer_id == person.pk for r in approvals_of(request)):
        found.append(("already_decided", "you have approved this already: it counts once"))
    return found


def not_now(request: DependencyRequest) -> Denied | None:
    """Why nobody may approve it now, if so."""
    _, policy = policy_in_force()
    if request.state != State.IN_REVIEW:
        words = f"it is {request.state.replace('_', ' ')}: there is nothing to approve"
        return Denied("wrong_state", words)
    if request.expires_at <= timezone.now():
        return Denied("expired", "nobody decided in time, and silence is no: ask again")
    if moved := drift(request):
        return Denied("stale", f"{moved}: the worker makes it again")
    if problems := policy_problems(policy, request.record):
        return Denied("denied_by_policy", f"nobody may approve it: {'; '.join(problems)[:1500]}")
    return None


def may_approve(person: Account, request: DependencyRequest) -> list[str]:
    """Why this account may not approve it now, in words; empty: it may."""
    found = [words for _, words in conflicts(person, request)]
    if problem := not_now(request):
        found.append(problem.message)
    return found


def approvals_of(request: DependencyRequest) -> list[DependencyReview]:
    """Valid approvals, oldest first."""
    valid = request.reviews.filter(
        standing=DependencyReview.Standing.VALID, decision=DependencyReview.Decision.APPROVE
    )
    return list(valid.select_related("reviewer"))


def approve(*, request_id: int, person: User, reason: str, binding_digest: str) -> DependencyReview:
    """One person's approval of exactly what `binding_digest` names; with the quorum, the worker
    builds."""
    subject = f"dependency:{request_id}"
    actor = actor_of(person)
    with act(actor=actor, tried="approve", subject=subject, denial=verbs.DENIAL) as ledger:
        request = verbs.locked(request_id)
        _, policy = policy_in_force()
        for code, words in conflicts(person, request):
            raise Denied(code, words)
        if problem := not_now(request):
            raise problem
        reason, binding = said(reason), binding_of(request)
        if digest(binding) != binding_digest:
            raise Denied("stale", "it changed since you opened the page: read it again")
        review = _review(
            request,
            person,
            decision=DependencyReview.Decision.APPROVE,
            reason=reason,
            binding=binding,
            lasts=timedelta(hours=policy.people.approval_hours),
        )
        moves.created(ledger, review)
        if len({r.reviewer_id for r in approvals_of(request)}) >= policy.dependencies.quorum:
            moves.move(ledger, request, Verb.APPROVE, reason)
            verbs.send(verbs.to_build, request)
        ledger.write(
            "dependency.approved",
            subject=subject,
            reason=reason,
            data={
                "dependency": request.pk,
                "review": review.pk,
                "binding": binding,
                "binding_digest": review.binding_digest,
                "expires_at": review.expires_at,
            },
        )
    return review


def reject(*, request_id: int, person: User, reason: str) -> DependencyReview:
    """One reviewer's no, which is enough."""
    subject = f"dependency:{request_id}"
    actor = actor_of(person)
    with act(actor=actor, tried="reject", subject=subject, denial=verbs.DENIAL) as ledger:
        request = verbs.locked(request_id)
        _, policy = policy_in_force()
        if not is_reviewer(person, policy):
            raise Denied("not_entitled", f"only the group {policy.people.roles.review} may decide")
        reason, binding = said(reason), binding_of(request)
        moves.void_all(ledger, request, f"rejected: {reason}")
        review = _review(
            request,
            person,
            decision=DependencyReview.Decision.REJECT,
            reason=reason,
            binding=binding,
            lasts=FOREVER,
        )
        moves.created(ledger, review)
        moves.move(ledger, request, Verb.REJECT, reason)
        ledger.write(
            "dependency.rejected",
            subject=subject,
            reason=reason,
            data={
                "dependency": request.pk,
                "review": review.pk,
                "binding_digest": review.binding_digest,
            },
        )
    return review


def void(*, request_id: int, reason: str) -> None:
    """The platform takes approvals back that no longer bind to what is there."""
    with act(actor=SYSTEM, tried="void", subject=f"dependency:{request_id}") as ledger:
        request = verbs.locked(request_id)
        moves.void_all(ledger, request, reason)
        if request.state in {State.APPROVED, State.BUILD_FAILED}:
            moves.move(ledger, request, Verb.VOID, reason)
            ledger.write(
                "dependency.reopened",
                subject=f"dependency:{request.pk}",
                reason=reason,
                data={"dependency": request.pk},
            )


def unbound(request: DependencyRequest) -> str:
    """Why its approvals do not stand for what would be built now; empty: they do."""
    binding = binding_of(request)
    reviews, now = approvals_of(request), timezone.now()
    if any(r.binding_digest != digest(binding) for r in reviews):
        return "what was approved is not what would be built now"
    if any(r.expires_at <= now for r in reviews):
        return "an approval expired"
    if request.state != State.IN_REVIEW and len({r.reviewer_id for r in reviews}) < int(
        binding["quorum"]
    ):
        return "it has not enough approvals"
    return ""


def _review(
    request: DependencyRequest,
    person: User,
    *,
    decision: DependencyReview.Decision,
    reason: str,
    binding: dict[str, Any],
    lasts: timedelta,
) -> DependencyReview:
    return DependencyReview.objects.create(
        request=request,
        reviewer=person,
        asked_by=request.requester,
        decision=decision,
        reason=reason,
        binding=binding,
        binding_digest=digest(binding),
        expires_at=timezone.now() + lasts,
    )
