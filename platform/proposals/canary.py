"""The canary: what went live is watched, and taken back by itself where the policy says so.

For every activation by approval, the policy's or people's: errors, failures, no effect, regression.
What was kept once is still taken back when its hooks raise or its runner gives it up: code may
behave while it is watched. The judgement is recorded before the rollback, so that a crash in
between loses neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

from audit.actors import SYSTEM
from django.utils import timezone
from runs import attribution
from runs.models import Runner, Trial

from proposals.activations import engage_stop
from proposals.acts import MAX_REASON_CHARS, Denied, act, allowed, locked_target, policy_in_force
from proposals.attestations import APPROVED_KINDS
from proposals.models import Activation
from proposals.policy import Canary
from proposals.stops import roll_back, stop_autonomy_by_platform


class Judgement(StrEnum):
    WAIT = "wait"  # not enough data
    KEEP = "keep"
    TAKE_BACK = "take_back"


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What the canary saw of one activation."""

    judgement: Judgement
    reasons: tuple[str, ...]
    trials: int
    decisions_changed: int
    gain: str
    broken: bool  # it raises or was given up: a judgement that comes at any time


def judge_canaries() -> int:
    """Judge whatever is live and not judged; take back what must go. How many were judged."""
    live = Activation.objects.filter(state=Activation.State.LIVE, kind__in=list(APPROVED_KINDS))
    judged = 0
    for activation in live.select_related("target", "proposal"):
        if activation.canary.get("judgement") != Judgement.TAKE_BACK:
            seen = watch(activation)
            if seen.judgement is Judgement.WAIT:
                continue
            if activation.judged_at is not None and not seen.broken:
                continue  # it was kept, and nothing broke since
            if not allowed(partial(_record, activation.pk, seen)):
                continue  # it ended, or another worker judged it, meanwhile
            activation.refresh_from_db()
            judged += 1
        if activation.canary.get("judgement") == Judgement.TAKE_BACK:
            allowed(partial(_take_back, activation))
    return judged


def watch(activation: Activation) -> Watch:
    """What the trials of an activation say by now, by the policy in force."""
    _, policy = policy_in_force()
    earlier = predecessor(activation)
    trials = trials_of(activation)
    before = trials_of(earlier) if earlier else []
    counts, past = attribution.count(trials), attribution.count(before)
    broken = _broken(policy.canary, counts, activation)
    reasons = broken + _reasons(policy.canary, counts, past)
    gain = attribution.compare(trials, before)
    words = str(gain) if gain else "not enough data"
    reasons += _regression(policy.canary, trials, before)
    enough = counts.trials >= max(policy.canary.trials, policy.canary.no_effect_trials)
    judgement = Judgement.WAIT
    if reasons:
        judgement = Judgement.TAKE_BACK
    elif enough:
        judgement = Judgement.KEEP
        reasons = [f"{counts.trials} trials, {counts.decisions_changed} decisions changed"]
    return Watch(
        judgement=judgement,
        reasons=tuple(reasons),
        trials=counts.trials,
        decisions_changed=counts.decisions_changed,
        gain=words,
        broken=bool(broken),
    )


def _broken(rules: Canary, counts: attribution.Counts, activation: Activation) -> list[str]:
    """What shows that it does not work, at whatever age: its hooks raise, or a runner of its target
    refuses to load it or gave it up, whatever another runner attested."""
    found = []
    if counts.hooks["raised"] > rules.max_errors:
        found.append(f"its hooks raised {counts.hooks['raised']} times")
    refusing = Runner.objects.filter(
        target=activation.target_id,
        revoked_at__isnull=True,
        observed_state="refused",
        observed_version=activation.version,
    )
    for runner in refusing:
        verb = "refused it" if runner.observed_digest else "gave it up"
        found.append(f"{runner.name} {verb}: {runner.observed_reason[:500]}")
    return found


def _reasons(rules: Canary, counts: attribution.Counts, past: attribution.Counts) -> list[str]:
    found = []
    share = past.failed / past.trials if past.trials else 0.0
    expected = share * counts.trials
    if counts.failed - expected > rules.max_failures:
        found.append(
            f"{counts.failed} of {counts.trials} trials failed, {expected:.1f} were to be expected"
        )
    if counts.trials >= rules.no_effect_trials and counts.decisions_changed == 0:
        found.append(f"no effect: not one decision changed in {counts.trials} trials")
    return found


def _regression(rules: Canary, trials: list[Trial], before: list[Trial]) -> list[str]:
    """Worse than its predecessor by more than the policy's sigmas.

    What each search holds is compared in units of noise. Trials are compared in units of the
    predecessor's own spread, as exploring is not regressing, and only with the whole interval.
    """
    if len(trials) < rules.trials:
        return []
    found = []
    for run in {t.run_id: t.run for t in trials}.values():
        held = [t.best_metric for t in before if t.run_id == run.pk]
        now = [t.best_metric for t in trials if t.run_id == run.pk]
        if not held or held[-1] is None or now[-1] is None or not run.sigma:
            continue
        lost = (1.0 if run.minimize else -1.0) * (now[-1] - held[-1]) / run.sigma
        if lost > rules.regression_sigma:
            found.append(f"regression: the search holds a best that is {lost:.1f} sigma worse")
    gain = attribution.compare(trials, before, in_spread=True)
    if gain is not None and gain.high < -rules.regression_sigma:
        found.append(f"regression: its trials against its predecessor's {gain}, in their spread")
    return found


def trials_of(activation: Activation) -> list[Trial]:
    """The trials that were chosen under this activation, in the order of their finishing."""
    rows = Trial.objects.filter(
        run__target=activation.target_id, version=activation.version, digest=activation.digest
    )
    return list(rows.select_related("run").order_by("finished_at", "number"))


def predecessor(activation: Activation) -> Activation | None:
    """What was live before it on its target, as other bytes."""
    return (
        Activation.objects.filter(
            target=activation.target_id, version__lt=activation.version, live_at__isnull=False
        )
        .exclude(digest=activation.digest)
        .order_by("-version")
        .first()
    )


def _record(activation_id: int, seen: Watch) -> None:
    activation = Activation.objects.select_related("target").get(pk=activation_id)
    subject = (
        f"proposal:{activation.proposal_id}"
        if activation.proposal_id
        else f"target:{activation.target.name}"
    )
    with act(actor=SYSTEM, tried="judge_canary", subject=subject) as ledger:
        target = locked_target(activation.target_id)
        activation.refresh_from_db()
        taken = activation.canary.get("judgement") == Judgement.TAKE_BACK
        again = activation.judged_at is not None and not seen.broken
        if taken or again or activation.state != Activation.State.LIVE:
            raise Denied("wrong_state", "it was judged, or ended, meanwhile")
        data: dict[str, Any] = {
            "judgement": seen.judgement,
            "reasons": list(seen.reasons),
            "trials": seen.trials,
            "decisions_changed": seen.decisions_changed,
            "gain": seen.gain,
        }
        activation.canary, activation.judged_at = data, timezone.now()
        activation.save(update_fields=["canary", "judged_at"])
        ledger.write(
            "canary.judged",
            subject=subject,
            target=target.name,
            reason="; ".join(seen.reasons),
            data={
                "activation": activation.pk,
                "verdict": seen.judgement,
                "reasons": list(seen.reasons),
                "trials": seen.trials,
                "decisions_changed": seen.decisions_changed,
                "gain": seen.gain,
            },
        )


def _take_back(activation: Activation) -> None:
    earlier = predecessor(activation)
    reasons = "; ".join(activation.canary["reasons"])
    if activation.kind == Activation.Kind.POLICY:
        stop_autonomy_by_platform(reason=f"what the policy approved had to go: {reasons}")
    if earlier is None:
        subject = f"target:{activation.target.name}"
        with act(actor=SYSTEM, tried="take_back", subject=subject) as ledger:
            words = f"{activation.mechanism} must go, and nothing was live before it: {reasons}"
            engage_stop(ledger, locked_target(activation.target_id), words[:MAX_REASON_CHARS])
        return
    if earlier.digest == activation.target.desired_digest:
        return  # on its way back already
    roll_back(
        target_id=activation.target_id,
        activation_id=earlier.pk,
        actor=SYSTEM,
        reason=f"taken back by itself: {reasons}",
    )
