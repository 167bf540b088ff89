"""From approved to desired: merge, and what a target should run.

One transaction re-checks everything that the approvals bind to and acts: lock, compare-and-swap
on the target's desired version, audit entry, and last of all the fast-forward of `main`. A crash
after that leaves `main` at the proposal's commit, which the next `activate` recognises and records.
What makes a mechanism live is an attestation (`attestations`).
"""

from __future__ import annotations

from audit.actors import SYSTEM, Actor, ActorKind
from django.contrib.auth.models import User
from django.utils import timezone
from runs.models import Target

from proposals import branches
from proposals.acts import (
    Denied,
    Ledger,
    act,
    locked_proposal,
    locked_target,
    policy_in_force,
    record_denial,
)
from proposals.approvals import quorum_met
from proposals.facts import approvals_of, binding_digest, binding_of, drift, open_stops
from proposals.models import Activation, PolicyVersion, Proposal, Review, Stop
from proposals.people import approval_problems, may_stop
from proposals.policy import Policy
from proposals.screenings import void_all
from proposals.states import State, Verb
from sandbox.report import digest_of


def activate(*, proposal_id: int, actor: Actor = SYSTEM) -> Activation:
    """Merge an approved proposal and ask its target's runners to load it. Uses the approval up."""
    subject = f"proposal:{proposal_id}"
    activation: Activation | None = None
    problem: Denied | None = None
    with act(actor=actor, tried="activate", subject=subject) as ledger:
        proposal = locked_proposal(proposal_id)
        version, policy = policy_in_force()
        _may_activate(actor, policy)
        _is_approved(proposal)
        if problem := _broken(proposal, version, policy):
            void_all(ledger, proposal, f"{problem.code}: {problem.message}")  # on record, not lost
        else:
            _free(proposal.target)
            activation = _merge(ledger, proposal, actor)
    if problem or activation is None:
        problem = problem or Denied("conflict", "nothing was activated")
        record_denial(problem, actor=actor, tried="activate", subject=subject, verb="action.denied")
        raise problem
    return activation


def _may_activate(actor: Actor, policy: Policy) -> None:
    if actor.kind is ActorKind.RUNNER:
        raise Denied("not_entitled", "a token activates nothing")
    if actor.kind is ActorKind.PERSON:
        person = User.objects.filter(pk=int(actor.id)).first()
        if not may_stop(person, policy):
            raise Denied("not_entitled", "only reviewers and operators may activate")


def _is_approved(proposal: Proposal) -> None:
    if proposal.state == State.APPROVED:
        return
    if proposal.reviews.filter(standing=Review.Standing.CONSUMED).exists():
        raise Denied("already_used", "its approval was used: one approval, one activation")
    raise Denied("wrong_state", f"it is {proposal.state}, not approved")


def _broken(proposal: Proposal, version: PolicyVersion, policy: Policy) -> Denied | None:
    """Why the approvals on record no longer carry an activation, if so."""
    now, reviews = timezone.now(), approvals_of(proposal)
    if proposal.expires_at <= now or any(r.expires_at <= now for r in reviews):
        return Denied("expired", "an approval is valid for a limited time, and that is over")
    if moved := drift(proposal, policy, version.digest):
        return Denied("stale", "; ".join(moved))
    current = binding_digest(binding_of(proposal))
    if any(r.binding_digest != current for r in reviews):
        return Denied("stale", "an approval binds to something else than what is there now")
    for review in reviews:
        if review.reviewer is None:
            continue
        for code, words in approval_problems(review.reviewer, proposal, version, policy):
            if code != "already_decided":
                return Denied(code, f"{review.reviewer.get_username()} no longer may: {words}")
    by_policy = [r.by_policy for r in reviews if r.reviewer_id is None]
    if by_policy and (stopped := open_stops()):
        return Denied("stopped", stopped[0])
    if by_policy and by_policy != [version.digest]:
        return Denied("stale", "the policy that approved is not in force")
    if not by_policy and not quorum_met(proposal):
        return Denied("stale", "too few valid approvals are left")
    return None


def _free(target: Target) -> None:
    stop = Stop.objects.filter(target=target, released_at__isnull=True).first()
    if stop is not None:
        raise Denied("stopped", f"{target.name} is stopped ({stop.reason}): release it first")
    busy = target.activations.filter(state=Activation.State.ACTIVATING).first()
    if busy is not None:
        raise Denied("busy", f"{target.name} is still loading {busy.mechanism}: one at a time")


def _merge(ledger: Ledger, proposal: Proposal, actor: Actor) -> Activation:
    repository = branches.living()
    source = repository.read(proposal.commit, proposal.mechanism_path)
    tree = repository.tree_of(proposal.commit)
    if digest_of(source) != proposal.digest or tree != proposal.tree:
        raise Denied("wrong_digest", "the branch does not hold what was tested: look at git")
    reviews = approvals_of(proposal)
    by_policy = any(r.reviewer_id is None for r in reviews)
    ledger.proposal(proposal, Verb.ACTIVATE)
    activation = request(
        ledger,
        target=proposal.target,
        kind=Activation.Kind.POLICY if by_policy else Activation.Kind.APPROVAL,
        mechanism=proposal.name,
        path=proposal.mechanism_path,
        commit=proposal.commit,
        digest=proposal.digest,
        proposal=proposal,
        approvals=reviews,
        actor=actor,
    )
    if repository.head() != proposal.commit:  # else: merged by an activation that crashed
        try:
            repository.fast_forward(old=proposal.base_commit, new=proposal.commit)
        except branches.Moved as error:
            raise Denied("stale", str(error)) from error
    return activation


def request(
    ledger: Ledger,
    *,
    target: Target,
    kind: Activation.Kind,
    mechanism: str,
    path: str,
    commit: str,
    digest: str,
    actor: Actor,
    proposal: Proposal | None = None,
    restores: Activation | None = None,
    approvals: list[Review] | None = None,
    reason: str = "",
) -> Activation:
    """Change what a target should run, by compare-and-swap on its desired version."""
    approvals = approvals or []
    seen = target.desired_version
    swapped = Target.objects.filter(pk=target.pk, desired_version=seen).update(
        desired_version=seen + 1,
        desired_mechanism=mechanism,
        desired_commit=commit,
        desired_digest=digest,
        desired_since=timezone.now(),
    )
    if not swapped:
        raise Denied("conflict", f"the desired state of {target.name} moved: look again")
    target.refresh_from_db()
    activation = Activation.objects.create(
        target=target,
        version=target.desired_version,
        kind=kind,
        proposal=proposal,
        restores=restores,
        mechanism=mechanism,
        mechanism_path=path,
        commit=commit,
        digest=digest,
        reason=reason,
        requested_by=str(actor),
    )
    ledger.created(activation)
    for review in approvals:
        ledger.consume(review, activation)
    ledger.write(
        "activation.requested",
        subject=subject_of(activation),
        target=target.name,
        reason=reason,
        actor=actor,
        data={
            "activation": activation.pk,
            "version": activation.version,
            "kind": kind,
            "proposal": proposal.pk if proposal else None,
            "mechanism": mechanism,
            "commit": commit,
            "digest": digest,
            "approvals": [r.pk for r in approvals],
            "binding_digest": approvals[0].binding_digest if approvals else "",
            "restores": restores.pk if restores else None,
        },
    )
    return activation


def subject_of(activation: Activation) -> str:
    """What the log's entries about an activation are about."""
    if activation.proposal_id is not None:
        return f"proposal:{activation.proposal_id}"
    return f"target:{activation.target.name}"


def seed(*, target_id: int, mechanism: str, actor: Actor = SYSTEM) -> Activation:
    """The first desired state of a target: a mechanism of `main`, approved by being the seed."""
    with act(actor=actor, tried="seed", subject=f"target:{target_id}") as ledger:
        target = locked_target(target_id)
        if target.desired_version:
            raise Denied("wrong_state", f"{target.name} has a desired state already")
        repository = branches.living()
        commit = repository.head()
        operator = repository.library(commit).get(mechanism)
        if operator is None:
            raise Denied("unknown", f"the mechanisms repository has no {mechanism}")
        return request(
            ledger,
            target=target,
            kind=Activation.Kind.SEED,
            mechanism=mechanism,
            path=operator.path,
            commit=commit,
            digest=digest_of(operator.source),
            actor=actor,
            reason="the seed of the target",
        )


def restore(
    ledger: Ledger,
    target: Target,
    earlier: Activation,
    *,
    kind: Activation.Kind,
    actor: Actor,
    reason: str,
) -> Activation:
    """Ask for an activation that was live once more, as a new version."""
    proposal = earlier.proposal
    if proposal is not None:
        proposal.refresh_from_db()
        if proposal.state in {State.SUPERSEDED, State.ROLLED_BACK}:
            ledger.proposal(proposal, Verb.RESTORE, reason)
    return request(
        ledger,
        target=target,
        kind=kind,
        mechanism=earlier.mechanism,
        path=earlier.mechanism_path,
        commit=earlier.commit,
        digest=earlier.digest,
        proposal=proposal,
        restores=earlier,
        actor=actor,
        reason=reason,
    )


def engage_stop(ledger: Ledger, target: Target | None, reason: str) -> Stop:
    """Open a stop of a target, or of autonomy, unless there is one; inside the open verb."""
    scope = Stop.Scope.TARGET if target else Stop.Scope.AUTONOMY
    already = Stop.objects.filter(scope=scope, target=target, released_at__isnull=True).first()
    if already is not None:
        return already
    stop = Stop.objects.create(
        scope=scope, target=target, reason=reason, engaged_by=str(ledger.actor)
    )
    ledger.write(
        "target.stopped" if target else "autonomy.stopped",
        subject=f"target:{target.name}" if target else "autonomy",
        target=target.name if target else "",
        reason=reason,
        data={"stop": stop.pk},
    )
    return stop
