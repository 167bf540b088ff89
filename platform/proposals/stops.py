"""Going back and stopping: roll back, stop, release. They need less than going on does.

Any version that was live can be brought back without an approval, always as a new desired version
and always logged. Any reviewer or operator may stop; releasing takes the policy's quorum.
"""

from __future__ import annotations

from audit.actors import SYSTEM, Actor, ActorKind
from django.contrib.auth.models import User
from django.utils import timezone
from runs.models import Target

from proposals.activations import engage_stop, restore
from proposals.acts import Denied, act, locked_target, policy_in_force, said
from proposals.models import Activation, Stop, StopRelease
from proposals.people import actor_of, is_reviewer, may_roll_back, may_stop
from proposals.states import State, Verb


def roll_back(*, target_id: int, activation_id: int, actor: Actor, reason: str) -> Activation:
    """Bring the version of `activation_id` back, which was live on this target."""
    name = Target.objects.filter(pk=target_id).values_list("name", flat=True).first() or target_id
    with act(actor=actor, tried="roll_back", subject=f"target:{name}") as ledger:
        target = locked_target(target_id)
        _may_roll_back(actor)
        reason = said(reason)
        earlier = target.activations.filter(pk=activation_id).first()
        if earlier is None or earlier.live_at is None:
            raise Denied("never_live", "only a version that was live here can be brought back")
        if earlier.digest == target.desired_digest:
            raise Denied("wrong_state", f"{earlier.mechanism} is what {target.name} should run now")
        taken = (
            target.activations.filter(
                state__in=[Activation.State.ACTIVATING, Activation.State.LIVE]
            )
            .order_by("-version")
            .first()
        )
        if taken is None:
            raise Denied("wrong_state", f"{target.name} runs nothing that could be taken back")
        ledger.activation(taken, Activation.State.ROLLED_BACK, reason)
        other = taken.proposal
        if other is not None and other.state in {State.ACTIVATING, State.LIVE}:
            ledger.proposal(other, Verb.ROLL_BACK, reason)
        ledger.write(
            "target.rolled_back",
            subject=f"target:{target.name}",
            target=target.name,
            reason=reason,
            data={"activation": taken.pk, "restores": earlier.pk, "proposal": taken.proposal_id},
        )
        by_person = actor.kind is ActorKind.PERSON
        kind = Activation.Kind.ROLLBACK if by_person else Activation.Kind.AUTO_ROLLBACK
        return restore(ledger, target, earlier, kind=kind, actor=actor, reason=reason)


def _may_roll_back(actor: Actor) -> None:
    if actor.kind is ActorKind.RUNNER:
        raise Denied("not_entitled", "a token rolls nothing back")
    if actor.kind is ActorKind.PERSON:
        _, policy = policy_in_force()
        if not may_roll_back(User.objects.filter(pk=int(actor.id)).first(), policy):
            raise Denied("not_entitled", "only reviewers and operators may roll back")


def stop(*, person: User, reason: str, target_id: int | None = None) -> Stop:
    """Stop a target (its runners start no further trial), or autonomy where none is named."""
    subject = "autonomy" if target_id is None else f"target:{_name(target_id)}"
    with act(actor=actor_of(person), tried="stop", subject=subject) as ledger:
        target = None if target_id is None else locked_target(target_id)
        _, policy = policy_in_force()
        if not may_stop(person, policy):
            raise Denied("not_entitled", "only reviewers and operators may stop")
        return engage_stop(ledger, target, said(reason))


def stop_autonomy_by_platform(*, reason: str) -> Stop:
    """The circuit breaker: the platform stops autonomy by itself."""
    with act(actor=SYSTEM, tried="stop", subject="autonomy") as ledger:
        return engage_stop(ledger, None, reason)


def release_stop(*, stop_id: int, person: User, reason: str) -> Stop:
    """One reviewer's word that a stop may end; with the policy's quorum of them it does."""
    found = Stop.objects.select_related("target").filter(pk=stop_id).first()
    subject = f"target:{found.target.name}" if found and found.target else "autonomy"
    with act(actor=actor_of(person), tried="release_stop", subject=subject) as ledger:
        stopped = Stop.objects.select_for_update().filter(pk=stop_id).first()
        if stopped is None or stopped.released_at is not None:
            raise Denied("wrong_state", "there is no such stop, or it is released")
        _, policy = policy_in_force()
        if not is_reviewer(person, policy):
            raise Denied("not_entitled", "only reviewers may release a stop")
        if StopRelease.objects.filter(stop=stopped, person=person).exists():
            raise Denied("already_decided", "you have said so already: it counts once")
        reason = said(reason)
        StopRelease.objects.create(stop=stopped, person=person, reason=reason)
        votes = [r.person for r in stopped.releases.select_related("person")]
        enough = sum(is_reviewer(p, policy) for p in votes) >= policy.people.release_quorum
        if enough:
            stopped.released_at = timezone.now()
            stopped.save(update_fields=["released_at"])
        ledger.write(
            f"{subject.partition(':')[0]}.{'released' if enough else 'release_voted'}",
            subject=subject,
            target=found.target.name if found and found.target else "",
            reason=reason,
            data={"stop": stopped.pk, "votes": len(votes), "needed": policy.people.release_quorum},
        )
    return stopped


def _name(target_id: int) -> str:
    found = Target.objects.filter(pk=target_id).values_list("name", flat=True).first()
    return found or str(target_id)
