"""What runners say they run: live, refused, or something that nobody asked for.

Only an attestation of the digest that was approved makes a mechanism live. A load that fails or
falls back is a state of its own: loud, on record, and followed by a return to what is live.
"""

from __future__ import annotations

from typing import Any

from audit.actors import SYSTEM, Actor, ActorKind
from audit.canonical import text
from django.utils import timezone
from runs.models import Runner, Target
from runs.texts import cleaned

from proposals.activations import engage_stop, restore, subject_of
from proposals.acts import Denied, Ledger, act, locked_target
from proposals.models import Activation
from proposals.states import State, Verb
from runner.protocol import Observed

APPROVED_KINDS = frozenset({Activation.Kind.APPROVAL, Activation.Kind.POLICY})
ROLLBACK_KINDS = frozenset({Activation.Kind.ROLLBACK, Activation.Kind.AUTO_ROLLBACK})


def runner_actor(runner: Runner) -> Actor:
    """The runner as an actor: a token, never a person."""
    return Actor(kind=ActorKind.RUNNER, id=str(runner.pk), name=runner.name)


def confirm_live(
    *, runner: Runner, version: int, digest: str, at_trial: int = 0
) -> Activation | None:
    """A runner attests the digest of the bytes that it runs. None: it is about an older version."""
    subject = f"target:{runner.target.name}"
    actor = runner_actor(runner)
    with act(
        actor=actor, tried="confirm_live", subject=subject, target=runner.target.name
    ) as ledger:
        target = locked_target(runner.target_id)
        activation = asked(target, version)
        if activation is None:
            return None
        if digest != activation.digest:
            raise _wrong(runner, activation, digest)
        if activation.state == Activation.State.LIVE:
            return activation
        _supersede_live(ledger, target, activation)
        activation.digest_attested = digest
        activation.attested_by = runner.name
        activation.at_trial = at_trial
        activation.live_at = timezone.now()
        ledger.activation(activation, Activation.State.LIVE)
        if activation.proposal and activation.proposal.state != State.LIVE:
            ledger.proposal(activation.proposal, Verb.CONFIRM_LIVE)
        target.live_version, target.live_mechanism = version, activation.mechanism
        target.live_digest, target.live_since = digest, activation.live_at
        target.save()
        ledger.write(
            "activation.live",
            subject=subject_of(activation),
            target=target.name,
            data={
                "activation": activation.pk,
                "version": version,
                "proposal": activation.proposal_id,
                "digest": activation.digest,
                "digest_attested": digest,
                "runner": runner.name,
                "at_trial": at_trial,
            },
        )
        return activation


def asked(target: Target, version: int) -> Activation | None:
    """The activation that a runner speaks of, if it is the desired one."""
    if version > target.desired_version:
        raise Denied("unknown_version", f"{target.name} has no version {version}")
    if version < target.desired_version:
        return None
    return target.activations.select_related("proposal", "target").filter(version=version).first()


def _supersede_live(ledger: Ledger, target: Target, by: Activation) -> None:
    earlier = target.activations.filter(state=Activation.State.LIVE).first()
    if earlier is None:
        return
    ledger.activation(earlier, Activation.State.SUPERSEDED)
    other = earlier.proposal
    if other is not None and other.pk != by.proposal_id and other.state == State.LIVE:
        ledger.proposal(other, Verb.SUPERSEDE)


def refuse_load(
    *, runner: Runner, version: int, digest_running: str, reason: str
) -> Activation | None:
    """A runner could not load what was asked for, or runs something else: loud, and back.

    The desired state returns to what is live, as a recorded activation of its own. Where nothing
    is (the seed, or that return itself), it stays what it is, and the refusal stays on show.
    """
    subject = f"target:{runner.target.name}"
    actor = runner_actor(runner)
    with act(
        actor=actor, tried="refuse_load", subject=subject, target=runner.target.name
    ) as ledger:
        target = locked_target(runner.target_id)
        activation = asked(target, version)
        if activation is None:
            return None
        earlier = target.activations.filter(version=target.live_version).first()
        leaves = (
            activation.state == Activation.State.ACTIVATING
            and activation.kind != Activation.Kind.REVERT
            and earlier is not None
        )
        if leaves:
            ledger.activation(activation, Activation.State.REFUSED, reason)
            if proposal := activation.proposal:
                first = activation.kind in APPROVED_KINDS
                verb = Verb.REFUSE_LOAD if first else Verb.ROLL_BACK
                if proposal.state == State.ACTIVATING:
                    ledger.proposal(proposal, verb, reason)
        ledger.write(
            "activation.refused",
            subject=subject_of(activation),
            target=target.name,
            reason=reason,
            data={
                "activation": activation.pk,
                "version": version,
                "proposal": activation.proposal_id,
                "digest": activation.digest,
                "digest_running": digest_running,
                "runner": runner.name,
            },
        )
        if leaves and earlier is not None:
            if activation.kind in ROLLBACK_KINDS:
                engage_stop(ledger, target, f"the rollback was refused: {reason}"[:1000])
            restore(
                ledger,
                target,
                earlier,
                kind=Activation.Kind.REVERT,
                actor=SYSTEM,
                reason=f"refused: {reason}",
            )
        return activation


def observe(*, runner: Runner, observed: Observed) -> None:
    """A runner's heartbeat: act on what it says, then keep it. Raises Denied on a wrong digest.

    A heartbeat that says the same as the last one changes nothing and writes no entry. It is kept
    after it was acted on: where that broke on our side, the same heartbeat is news once more.
    """
    denied: Denied | None = None
    try:
        _follow(runner, observed, news=_is_news(runner, observed))
    except Denied as found:
        denied = found
    Runner.objects.filter(pk=runner.pk).update(
        seen_at=timezone.now(),
        **_said(observed),
        observed_mechanism=text(observed.mechanism)[:60],
        activity=text(observed.activity),
        posture=cleaned(observed.posture),
    )
    if denied is not None:
        raise denied


def _follow(runner: Runner, observed: Observed, *, news: bool) -> None:
    """What follows from a heartbeat."""
    version, digest = observed.version, observed.digest
    if observed.state == "refused" and news:
        reason = text(observed.reason) or "the runner gave no reason"
        refuse_load(runner=runner, version=version, digest_running=digest, reason=reason)
    if observed.state != "live":
        return
    target = Target.objects.get(pk=runner.target_id)
    live = (target.live_version, target.live_digest) == (version, digest)
    if version < target.desired_version or live:
        return
    if not news and (wanted := asked(target, version)) and wanted.digest != digest:
        raise _wrong(runner, wanted, digest)  # it was told, and is on record
    try:
        confirm_live(runner=runner, version=version, digest=digest, at_trial=observed.at_trial)
    except Denied as denied:
        if denied.code == "wrong_digest":
            why = denied.message
            refuse_load(runner=runner, version=version, digest_running=digest, reason=why)
        raise


def _wrong(runner: Runner, wanted: Activation, digest: str) -> Denied:
    return Denied(
        "wrong_digest",
        f"{runner.name} runs {digest[:12] or 'nothing'}, not {wanted.digest[:12]} "
        f"({wanted.mechanism}), which was asked for",
    )


def _said(observed: Observed) -> dict[str, Any]:
    """What makes a heartbeat news, by the runner's columns."""
    return {
        "observed_version": observed.version,
        "observed_state": observed.state,
        "observed_digest": observed.digest,
        "observed_reason": text(observed.reason),
    }


def _is_news(runner: Runner, observed: Observed) -> bool:
    return any(getattr(runner, name) != value for name, value in _said(observed).items())
