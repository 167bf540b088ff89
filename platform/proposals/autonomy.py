"""Guarded autonomous mode: the policy as an actor like any other, never a bypass.

It approves through `lifecycle.approve_by_policy` alone, which judges again under lock. Whatever it
does not approve, people decide; why is on record. In shadow mode it only records what it would
have done. On an audit log that does not verify it approves nothing.
"""

from __future__ import annotations

from audit import keys, source
from audit.canonical import digest
from audit.evidence import Unavailable, providers
from django.db import DatabaseError
from django.utils import timezone

from proposals import branches, lifecycle
from proposals.acts import Denied, policy_in_force
from proposals.facts import context_now, evidence_of, screening_of
from proposals.models import Proposal
from proposals.policy import Decision, Mode, Verdict, judge
from proposals.states import State

__all__ = ["consider", "consider_all", "log_problem"]


def consider_all() -> int:
    """Look at everything in review once; how many were approved by policy."""
    _, policy = policy_in_force()
    if policy.mode_at(timezone.now()) is Mode.MANUAL:
        return 0
    waiting = Proposal.objects.filter(state=State.PASSED).order_by("pk")
    return sum(consider(proposal) for proposal in waiting)


def consider(proposal: Proposal) -> bool:
    """Approve by policy, or record why not, once for each evidence and policy."""
    version, policy = policy_in_force()
    mode = policy.mode_at(timezone.now())
    screening = screening_of(proposal)
    if mode is Mode.MANUAL or screening is None:
        return False
    seen = digest({"evidence": screening.evidence_digest, "policy": version.digest})
    if proposal.automatic.get("seen") == seen:
        return False
    if branches.living().head() != proposal.base_commit:
        return False  # it is screened again first
    problem = log_problem() if screening.verdict.get("would") == Decision.ALLOW else ""
    context = context_now(version.digest, log_problem=problem)
    verdict = judge(policy, evidence_of(proposal, screening), context)
    if mode is Mode.SHADOW:
        _note(proposal, "autonomy.shadowed", mode, _would(verdict), seen)
        return False
    reasons = list(verdict.reasons)
    if screening.verdict.get("decision") != Decision.ALLOW:
        reasons = list(screening.verdict.get("reasons", [])) or reasons
    elif verdict.automatic:
        try:
            lifecycle.approve_by_policy(proposal_id=proposal.pk, log_problem=problem)
            return True
        except Denied as denied:
            reasons = [denied.message]
    _note(proposal, "autonomy.declined", mode, reasons, seen)
    return False


def _would(verdict: Verdict) -> list[str]:
    if verdict.would is Decision.ALLOW:
        return ["would have approved"]
    return [f"would not have approved ({verdict.would})", *verdict.reasons]


def _note(proposal: Proposal, verb: str, mode: Mode, reasons: list[str], seen: str) -> None:
    lifecycle.note_automatic(
        proposal_id=proposal.pk, verb=verb, mode=mode, reasons=reasons, seen=seen
    )


def log_problem() -> str:
    """Why the audit log does not verify; "" if it does."""
    try:
        anchors = [a for provider in providers() for a in provider.anchors()]
        result = source.examine("default", key=keys.public_key_hex(), anchors=anchors)
    except (source.CouldNotLook, Unavailable, OSError, DatabaseError, keys.KeyProblem) as error:
        return f"could not look: {error}"[:500]
    if result.ok:
        return ""
    return "; ".join(str(p.message) for p in result.problems[:3])[:500] or "not checked"
