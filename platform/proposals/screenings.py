"""The lifecycle's side of screening: queue, claim, finish, give up, cancel, look again.

A report is written once. A screening that could not look is done with that outcome, and another
one is queued with a growing delay, up to a bound; nothing but a report whose every check passed
makes a proposal pass. `proposals.screening` does the looking.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from audit.actors import SYSTEM, Actor, ActorKind
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F, Q
from django.dispatch import Signal
from django.utils import timezone

from proposals import branches
from proposals.acts import Denied, Ledger, act, allowed, locked_proposal, policy_in_force, said
from proposals.facts import context_now, evidence_of
from proposals.models import Proposal, Review, Screening
from proposals.people import may_stop
from proposals.policy import Decision, Policy, judge
from proposals.states import State, Verb
from sandbox.report import Outcome, Report

MAX_ATTEMPTS = 4
BACKOFF_SECONDS = (0, 5, 20, 60)
WORKER_SILENT_SECONDS = 150

screening_queued = Signal()
"""Sent after commit with `screening_id` and `delay_seconds`; whoever looks listens."""


def queue(ledger: Ledger, proposal: Proposal, *, attempt: int = 0, note: str = "") -> Screening:
    """Queue a look at the proposal's commit, inside the verb that is open."""
    delay = BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)]
    not_before = timezone.now() + timedelta(seconds=delay) if delay else None
    screening = Screening.objects.create(
        proposal=proposal,
        commit=proposal.commit,
        attempt=attempt,
        not_before=not_before,
        progress=note[:300],
    )
    ledger.write(
        "screening.queued",
        subject=f"proposal:{proposal.pk}",
        target=proposal.target.name,
        reason=note,
        data={"proposal": proposal.pk, "screening": screening.pk, "attempt": attempt},
    )
    transaction.on_commit(
        lambda: screening_queued.send(
            sender=Screening, screening_id=screening.pk, delay_seconds=delay
        )
    )
    return screening


def claim(screening_id: int) -> Screening | None:
    """Take a queued screening by compare-and-swap; None if it is not to be had (any more)."""
    proposal_id = _proposal_of(screening_id)
    with act(actor=SYSTEM, tried="claim", subject=f"proposal:{proposal_id}") as ledger:
        proposal = locked_proposal(proposal_id)
        now = timezone.now()
        due = Q(not_before__isnull=True) | Q(not_before__lte=now)
        queued = Screening.objects.filter(due, pk=screening_id, phase=Screening.Phase.QUEUED)
        if not queued.update(
            phase=Screening.Phase.RUNNING,
            claimed_at=now,
            attempt=F("attempt") + 1,
            progress="starting",
        ):
            return None
        screening = Screening.objects.get(pk=screening_id)
        ledger.proposal(proposal, Verb.START_SCREENING)
        ledger.write(
            "screening.started",
            subject=f"proposal:{proposal.pk}",
            target=proposal.target.name,
            data={
                "proposal": proposal.pk,
                "screening": screening.pk,
                "attempt": screening.attempt,
            },
        )
    screening.proposal = proposal
    return screening


def progress(screening_id: int, words: str) -> bool:
    """Say how far it is, and that the worker lives. False: it was taken away; stop looking."""
    running = Screening.objects.filter(pk=screening_id, phase=Screening.Phase.RUNNING)
    return bool(running.update(progress=words[:300], claimed_at=timezone.now()))


def finish(screening_id: int, report: Report) -> Screening:
    """Store the report, judge it by the policy in force, and move the proposal."""
    proposal_id = _proposal_of(screening_id)
    with act(actor=SYSTEM, tried="finish", subject=f"proposal:{proposal_id}") as ledger:
        proposal, screening = _running(proposal_id, screening_id)
        if report.digest != proposal.digest:
            raise Denied("wrong_digest", "the report is about other bytes than the proposal's")
        version, policy = policy_in_force()
        screening.report = report.to_data()
        screening.evidence_digest = report.evidence_digest
        screening.image_id = report.image_id
        screening.policy_digest = version.digest
        screening.outcome = report.outcome
        screening.finished_at = timezone.now()
        verdict = judge(
            policy,
            evidence_of(proposal, screening),
            context_now(version.digest, same_base=branches.living().head() == proposal.base_commit),
        )
        screening.verdict = verdict.to_data()
        _close(ledger, proposal, screening, policy)
    return screening


def could_not_look(screening_id: int, message: str, *, given_back: bool = False) -> Screening:
    """The engine, git or the worker failed: nothing is said about the draft.

    `given_back`: the worker was told to stop; that attempt does not count.
    """
    proposal_id = _proposal_of(screening_id)
    with act(actor=SYSTEM, tried="could_not_look", subject=f"proposal:{proposal_id}") as ledger:
        proposal, screening = _running(proposal_id, screening_id)
        version, policy = policy_in_force()
        screening.outcome = Outcome.COULD_NOT_LOOK
        screening.policy_digest = version.digest
        screening.progress = message[:300]
        screening.finished_at = timezone.now()
        if given_back:
            screening.attempt -= 1
        _close(ledger, proposal, screening, policy, message)
    return screening


def _close(
    ledger: Ledger, proposal: Proposal, screening: Screening, policy: Policy, message: str = ""
) -> None:
    screening.phase = Screening.Phase.DONE
    screening.save()
    again = screening.outcome == Outcome.COULD_NOT_LOOK
    words = _words(screening, message)
    denied = screening.verdict.get("decision") == Decision.DENY
    if screening.outcome == Outcome.PASSED and not denied:
        ledger.proposal(proposal, Verb.PASS, words)
    elif not again:
        ledger.proposal(proposal, Verb.FAIL, words)
    else:
        proposal.state_reason = words
        proposal.save(update_fields=["state_reason", "changed_at"])
    verdict = {"decision": "deny", "quorum": policy.people.quorum.high, "risk": "high"}
    verdict |= {"automatic": False, "reasons": [words]}
    verdict = screening.verdict or verdict
    ledger.write(
        "screening.finished",
        subject=f"proposal:{proposal.pk}",
        target=proposal.target.name,
        reason=words,
        data={
            "proposal": proposal.pk,
            "screening": screening.pk,
            "commit": screening.commit,
            "outcome": screening.outcome,
            "evidence_digest": screening.evidence_digest,
            "image_id": screening.image_id,
            "policy_digest": screening.policy_digest,
            "verdict": {
                k: verdict[k] for k in ("decision", "quorum", "risk", "automatic", "reasons")
            },
        },
    )
    if again and screening.attempt < MAX_ATTEMPTS:
        ledger.proposal(proposal, Verb.RESCREEN, words)
        queue(ledger, proposal, attempt=screening.attempt, note=words)


def _words(screening: Screening, message: str) -> str:
    if screening.outcome == Outcome.COULD_NOT_LOOK:
        found = message or "; ".join(
            f"{c['name']}: {c['findings'][0]['message'] if c['findings'] else 'could not look'}"
            for c in screening.report.get("checks", [])
            if c["outcome"] == Outcome.COULD_NOT_LOOK
        )
        more = screening.attempt < MAX_ATTEMPTS
        then = "trying again" if more else "given up; look again once the cause is mended"
        return f"could not look ({found[:1000]}); {then}"
    if screening.outcome == Outcome.FAILED:
        errors = [
            f"{f['rule']}: {f['message']}"
            for c in screening.report["checks"]
            for f in c["findings"]
            if f["severity"] == "error"
        ]
        return "; ".join(errors)[:2000] or "a check failed"
    return "; ".join(screening.verdict.get("reasons", []))[:2000]


def give_up_silent() -> int:
    """Screenings whose worker fell silent: their look counts as one that could not look."""
    before = timezone.now() - timedelta(seconds=WORKER_SILENT_SECONDS)
    silent = Screening.objects.filter(phase=Screening.Phase.RUNNING, claimed_at__lt=before)
    words = "the worker that looked fell silent"
    return sum(
        allowed(partial(could_not_look, pk, words)) for pk in silent.values_list("pk", flat=True)
    )


def cancel_open(ledger: Ledger, proposal: Proposal) -> None:
    """Cancel whatever look is queued or running, inside the verb that is open."""
    for screening in proposal.screenings.filter(
        phase__in=[Screening.Phase.QUEUED, Screening.Phase.RUNNING]
    ):
        screening.phase = Screening.Phase.CANCELLED
        screening.finished_at = timezone.now()
        screening.save(update_fields=["phase", "finished_at"])
        ledger.write(
            "screening.cancelled",
            subject=f"proposal:{proposal.pk}",
            target=proposal.target.name,
            data={"proposal": proposal.pk, "screening": screening.pk},
        )


def rescreen(*, proposal_id: int, actor: Actor, reason: str) -> Screening:
    """Look again: on the head of `main`, under the policy and the image of now.

    Approvals so far are voided; the draft's bytes stay what they are. The commit is a new one
    where the base moved.
    """
    with act(actor=actor, tried="rescreen", subject=f"proposal:{proposal_id}") as ledger:
        proposal, reason = locked_proposal(proposal_id), said(reason)
        _may_rescreen(actor, proposal)
        if proposal.screenings.filter(phase__in=["queued", "running"]).exists():
            raise Denied("wrong_state", "a screening of it is queued or running: wait for it")
        void_all(ledger, proposal, reason)
        ledger.proposal(proposal, Verb.RESCREEN, reason)
        _rebase(ledger, proposal)
        return queue(ledger, proposal, note=reason)


def _may_rescreen(actor: Actor, proposal: Proposal) -> None:
    if actor.kind is ActorKind.SYSTEM:
        return
    if actor.kind is ActorKind.PERSON:
        _, policy = policy_in_force()
        person = User.objects.filter(pk=int(actor.id)).first()
        mine = person is not None and person.is_active and person.pk == proposal.requester_id
        if mine or may_stop(person, policy):
            return
    raise Denied("not_entitled", "only who requested it, reviewers and operators may")


def void_all(ledger: Ledger, proposal: Proposal, reason: str) -> None:
    """Void what was decided so far, with the reason; an approved proposal is back in review."""
    reviews = list(proposal.reviews.filter(standing=Review.Standing.VALID))
    for review in reviews:
        ledger.void(review, reason)
    if proposal.state == State.APPROVED:
        ledger.proposal(proposal, Verb.VOID, reason)
    if reviews or ledger.moves:
        ledger.write(
            "review.voided",
            subject=f"proposal:{proposal.pk}",
            target=proposal.target.name,
            reason=reason,
            data={"proposal": proposal.pk, "reviews": [r.pk for r in reviews]},
        )


def _rebase(ledger: Ledger, proposal: Proposal) -> None:
    """The same bytes on the head of `main`, if that moved."""
    repository = branches.living()
    head = repository.head()
    if head == proposal.base_commit:
        return
    changed = repository.changed(proposal.base_commit, proposal.commit)
    files = {path: data for path, data in changed.items() if data is not None}
    if proposal.mechanism_path in repository.paths(head):
        raise Denied("name_exists", f"{proposal.name} exists on the new base: withdraw this one")
    earlier = proposal.commit
    done = repository.commit_draft(
        proposal_id=proposal.pk, base=head, files=files, name=proposal.name
    )
    proposal.base_commit, proposal.commit, proposal.tree = head, done.commit, done.tree
    proposal.save()
    ledger.write(
        "proposal.rebased",
        subject=f"proposal:{proposal.pk}",
        target=proposal.target.name,
        data={
            "proposal": proposal.pk,
            "earlier_commit": earlier,
            "commit": done.commit,
            "tree": done.tree,
            "base_commit": head,
            "digest": proposal.digest,
        },
    )


def _proposal_of(screening_id: int) -> int:
    found = Screening.objects.filter(pk=screening_id).values_list("proposal", flat=True).first()
    if found is None:
        raise Denied("unknown", f"there is no screening {screening_id}")
    return found


def _running(proposal_id: int, screening_id: int) -> tuple[Proposal, Screening]:
    proposal = locked_proposal(proposal_id)
    screening = Screening.objects.select_for_update().get(pk=screening_id)
    if screening.phase != Screening.Phase.RUNNING:
        raise Denied("wrong_state", f"the screening is {screening.phase}: its result is not taken")
    return proposal, screening
