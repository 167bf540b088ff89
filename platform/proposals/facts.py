"""From rows to what the policy judges: evidence, context, and what an approval binds to.

Reads the database and git; decides nothing, changes nothing.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from audit.canonical import digest
from django.db.models import F
from django.utils import timezone
from runs.models import Target

from proposals import branches, hooks, operators, shown
from proposals.acts import Denied, policy_in_force
from proposals.models import Activation, Proposal, Review, Screening, Stop
from proposals.policy import Context, Evidence, Policy
from sandbox import lock as sandbox_lock
from sandbox.advisories import parse_time
from sandbox.report import Outcome


def evidence_of(proposal: Proposal, screening: Screening) -> Evidence:
    """What the screening and the commit show."""
    changed = branches.living().changed(proposal.base_commit, proposal.commit)
    checks = screening.report.get("checks", [])
    totals: dict[str, Any] = {}
    for check in checks:
        if check["name"] == "replay":
            totals = check.get("detail", {}).get("totals", {})
    finished = screening.finished_at or timezone.now()
    return Evidence(
        outcome=screening.outcome,
        checks={c["name"]: c["outcome"] for c in checks},
        rules=tuple(f["rule"] for c in checks for f in c["findings"] if f["severity"] != "note"),
        paths=tuple(changed),
        lines=sum((data or b"").count(b"\n") + 1 for data in changed.values()),
        recognised=operators.recognised(proposal).operator,
        decisions_changed=int(totals.get("decisions_changed", 0)),
        age_hours=(timezone.now() - finished) / timedelta(hours=1),
        advisories_days=_advisories_days(checks),
    )


def _advisories_days(checks: list[dict[str, Any]]) -> int | None:
    """How old now is what the scan of the dependencies knew; None: nobody scanned all of them."""
    for check in checks:
        known = check.get("detail", {}).get("advisories")
        if check["name"] == "dependencies" and isinstance(known, dict):
            if known["state"] == "not scanned" or not known["dated"]:
                return None
            return max((timezone.now() - parse_time(known["dated"])).days, 0)
    return None


def context_now(policy_digest: str, *, same_base: bool = True, log_problem: str = "") -> Context:
    """The moment of judging: budgets are counted from the approvals on record."""
    now = timezone.now()
    approvals = Review.objects.filter(decision=Review.Decision.APPROVE)
    automatic = approvals.filter(reviewer__isnull=True)
    person = approvals.filter(reviewer__isnull=False).order_by("-id").first()
    in_a_row = automatic.filter(pk__gt=person.pk if person else 0).count()
    return Context(
        now=now,
        policy_digest=policy_digest,
        automatic_today=automatic.filter(created_at__gt=now - timedelta(days=1)).count(),
        automatic_in_a_row=in_a_row,
        stops=tuple(open_stops()),
        log_problem=log_problem,
        same_base=same_base,
    )


def open_stops(target: Target | None = None) -> list[str]:
    """Open stops of autonomy, and of the target if one is named, in words."""
    stops = Stop.objects.filter(released_at__isnull=True)
    return [
        f"{'autonomy' if s.scope == Stop.Scope.AUTONOMY else 'the target'} is stopped: {s.reason}"
        for s in stops
        if s.scope == Stop.Scope.AUTONOMY or (target is not None and s.target_id == target.pk)
    ]


def screening_of(proposal: Proposal) -> Screening | None:
    """The newest finished screening of the proposal's commit."""
    return proposal.screenings.filter(commit=proposal.commit, phase=Screening.Phase.DONE).first()


def image_in_force() -> str:
    """The sandbox image that the newest screening ran on, of those made of the lock in force."""
    done = Screening.objects.filter(phase=Screening.Phase.DONE).exclude(image_id="")
    if lock := hooks.lock_in_force():
        done = done.filter(report__versions__lock=lock)
    return done.order_by("-finished_at").values_list("image_id", flat=True).first() or ""


def locks_for(activation: Activation) -> list[str]:
    """Locks of the sandbox image that a runner may run it with: the one in force, and the one
    that its proposal was screened with."""
    found = {hooks.lock_in_force() or sandbox_lock.seed().digest}
    earlier = activation.restores
    if proposal := activation.proposal_id or (earlier.proposal_id if earlier else None):
        done = Screening.objects.filter(proposal=proposal, phase=Screening.Phase.DONE)
        newest = done.filter(commit=F("proposal__commit"))
        # The one word of a report that may be large: this is asked at every trial.
        found.add(newest.values_list("report__versions__lock", flat=True).first() or "")
    return sorted(found - {""})


def binding_of(proposal: Proposal) -> dict[str, Any]:
    """What an approval of the proposal names, as it is now. Raises Denied where nothing passed."""
    screening = screening_of(proposal)
    if screening is None or screening.outcome != Outcome.PASSED:
        raise Denied("wrong_state", "it has no screening that passed: there is nothing to approve")
    version, policy = policy_in_force()
    return {
        "proposal": proposal.pk,
        "target": proposal.target.name,
        "commit": proposal.commit,
        "tree": proposal.tree,
        "base_commit": proposal.base_commit,
        "digest": proposal.digest,
        "evidence_digest": screening.evidence_digest,
        "image_id": screening.image_id,
        "policy_digest": version.digest,
        "mode": str(policy.mode_at(timezone.now())),
    }


def binding_digest(binding: dict[str, Any]) -> str:
    """The identity of a binding."""
    return digest(binding)


def drift(proposal: Proposal, policy: Policy, policy_digest: str) -> list[str]:
    """Why the evidence no longer fits what is there now; empty: it fits."""
    screening = screening_of(proposal)
    if screening is None:
        return ["there is no screening of this commit"]
    found = []
    repository = branches.living()
    if repository.head() not in {proposal.base_commit, proposal.commit}:
        found.append("the base moved")
    if screening.policy_digest != policy_digest:
        found.append("the policy changed")
    lock = hooks.lock_in_force()
    if lock and screening.report.get("versions", {}).get("lock") != lock:
        found.append("the sandbox image has other packages now")
    elif screening.image_id != image_in_force():
        found.append("the sandbox image changed")
    age = timezone.now() - (screening.finished_at or screening.created_at)
    if age > timedelta(hours=policy.checks.fresh_hours):
        found.append(f"the evidence is older than {policy.checks.fresh_hours:g} h")
    if repository.branch(proposal.pk) != proposal.commit:
        found.append("the branch moved")
    low = screening.verdict.get("risk") == "low"
    if low and operators.recognised(proposal).operator != proposal.recognised:
        found.append(f"the approved operator {proposal.recognised} counts no longer")
    return found


def shown_required(proposal: Proposal) -> dict[str, str]:
    """Everything that must have been opened before an approval: key -> digest of its content.

    `file:PATH` is each changed file, `finding:CHECK:INDEX` each finding.
    """
    changed = branches.living().changed(proposal.base_commit, proposal.commit)
    required = {f"file:{path}": shown.digest_of(data or b"") for path, data in changed.items()}
    if screening := screening_of(proposal):
        for check in screening.report.get("checks", []):
            for index, finding in enumerate(check["findings"]):
                required[f"finding:{check['name']}:{index}"] = shown.digest_of(finding)
    return required


def approvals_of(proposal: Proposal) -> list[Review]:
    """Valid approvals, oldest first."""
    return list(
        proposal.reviews.filter(
            standing=Review.Standing.VALID, decision=Review.Decision.APPROVE
        ).select_related("reviewer")
    )


def digest_of_version(target: Target, version: int) -> str | None:
    """The digest of a version of a target; None: there was no such version."""
    found = Activation.objects.filter(target=target, version=version)
    return found.values_list("digest", flat=True).first()
