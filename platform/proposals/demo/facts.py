"""What the headless demo's summary says of each proposal, read from where it was recorded.

`digest_approved` is computed here from the bytes in git at the commit that the approval names;
`digest_attested` is what a runner attested and nothing else. That they agree is the story's point,
so neither is ever derived from the other.
"""

from __future__ import annotations

from typing import Any

from audit.models import Entry
from runs.models import Trial

from proposals import branches
from proposals.models import Activation, Proposal, Review
from sandbox.report import digest_of


def of_proposal(proposal_id: int) -> dict[str, Any]:
    """The facts of one proposal."""
    proposal = Proposal.objects.get(pk=proposal_id)
    screening = proposal.screenings.first()
    report = screening.report if screening else {}
    failed = [c["name"] for c in report.get("checks", []) if c["outcome"] == "failed"]
    return {
        "proposal": proposal.pk,
        "name": proposal.name,
        "generator": proposal.generator,
        "state": proposal.state,
        "commit": proposal.commit,
        "digest_approved": digest_approved(proposal),
        "digest_attested": digest_attested(proposal),
        "approved_by": [_by(review) for review in _approvals(proposal)],
        "failed_checks": failed,
        **in_production(proposal),
        "audit": audit_numbers(proposal),
    }


def _approvals(proposal: Proposal) -> list[Review]:
    return list(
        proposal.reviews.filter(
            decision=Review.Decision.APPROVE, standing=Review.Standing.CONSUMED
        ).select_related("reviewer")
    )


def _by(review: Review) -> str:
    if review.reviewer is not None:
        return review.reviewer.get_username()
    return f"policy:{review.by_policy[:12]}"


def digest_approved(proposal: Proposal) -> str | None:
    """SHA-256 of the file in git at the commit that the used approvals bind to."""
    commits = {review.binding["commit"] for review in _approvals(proposal)}
    if not commits:
        return None
    if len(commits) > 1:
        raise ValueError(f"proposal {proposal.pk}: its approvals name several commits")
    return digest_of(branches.living().read(commits.pop(), proposal.mechanism_path))


def digest_attested(proposal: Proposal) -> str | None:
    """What a runner attested for the activation that the approval allowed."""
    kinds = [Activation.Kind.APPROVAL, Activation.Kind.POLICY]
    activation = proposal.activations.filter(kind__in=kinds).exclude(digest_attested="").first()
    return activation.digest_attested if activation else None


def in_production(proposal: Proposal) -> dict[str, Any]:
    """What its trials report: counted by the runner's host side, summed here."""
    # An alien digest could never match: trials are found by the bytes that chose them.
    trials = Trial.objects.filter(digest=proposal.digest, run__target=proposal.target)
    hooks: dict[str, int] = {}
    for counts in trials.values_list("hooks", flat=True):
        for name, count in counts.items():
            hooks[name] = hooks.get(name, 0) + int(count)
    names = ("propose_calls", "ask_calls", "accept_calls", "observe_calls")
    return {
        "trials": trials.count(),
        "hook_calls": {name: hooks.get(name, 0) for name in names},
        "decisions_changed": hooks.get("proposals_changed", 0)
        + hooks.get("acceptances_changed", 0),
    }


def audit_numbers(proposal: Proposal) -> list[int]:
    """The sequence numbers of the log's entries about it, oldest first."""
    subjects = [f"proposal:{proposal.pk}"]
    subjects += [f"screening:{s.pk}" for s in proposal.screenings.all()]
    subjects += [f"review:{r.pk}" for r in proposal.reviews.all()]
    subjects += [f"activation:{a.pk}" for a in proposal.activations.all()]
    rows = Entry.objects.filter(subject__in=subjects).order_by("seq")
    return list(rows.values_list("seq", flat=True))


def trials_since(version: int) -> list[dict[str, Any]]:
    """The trials that ran under one version of the target's desired state."""
    rows = Trial.objects.filter(version=version).order_by("number")
    return [
        {"number": t.number, "mechanism": t.mechanism, "digest": t.digest, "status": t.status}
        for t in rows
    ]
