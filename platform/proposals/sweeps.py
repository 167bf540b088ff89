"""What the platform does by itself, every few seconds: each sweep is small and can be repeated.

A sweep acts through the verbs of the lifecycle, as the system or as the policy, and asks first
whether it may, so that what must wait does not fill the log with denials.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from audit import checkpoints
from audit.actors import SYSTEM
from django.conf import settings
from django.utils import timezone

from proposals import (
    autonomy,
    branches,
    canary,
    lifecycle,
    sandbox_watch,
    screening,
    screenings,
)
from proposals.acts import MAX_REASON_CHARS, Denied, allowed, policy_in_force
from proposals.models import Activation, Proposal, Review, Stop
from proposals.states import State
from sandbox.backends import get_backend

BEAT = "worker.beat"
REAPER, SANDBOX = "container reaper", "sandbox"
# Their trouble is said elsewhere, and is no reason for the worker to end.
NEED_AN_ENGINE = frozenset({REAPER, SANDBOX})
# What can't be put on this head, whose library has the name: it waits for its requester.
_unmoved: set[tuple[int, str]] = set()


def activate_approved() -> int:
    """Approved proposals whose target is free; also finishes what a crash left half-done."""
    done = 0
    waiting = Proposal.objects.filter(state=State.APPROVED).select_related("target")
    for proposal in waiting.order_by("changed_at"):
        busy = proposal.target.activations.filter(state=Activation.State.ACTIVATING).exists()
        stopped = Stop.objects.filter(target=proposal.target, released_at__isnull=True).exists()
        if not busy and not stopped:
            done += allowed(partial(lifecycle.activate, proposal_id=proposal.pk, actor=SYSTEM))
    return done


def expire() -> int:
    """Silence is no: open proposals past their day, approvals past theirs."""
    now, done = timezone.now(), 0
    undecided = (State.SUBMITTED, State.SCREENING, State.PASSED, State.APPROVED)
    for pk in Proposal.objects.filter(state__in=undecided, expires_at__lte=now).values_list(
        "pk", flat=True
    ):
        done += allowed(partial(lifecycle.expire, proposal_id=pk))
    old = Review.objects.filter(
        standing=Review.Standing.VALID,
        decision=Review.Decision.APPROVE,
        expires_at__lte=now,
        proposal__state__in=(State.PASSED, State.APPROVED),
    )
    for pk in set(old.values_list("proposal", flat=True)):
        done += allowed(partial(lifecycle.void, proposal_id=pk, reason="an approval expired"))
    return done


def rescreen_stale() -> int:
    """Whatever is in review and no longer fits its base, policy, image or day: look again."""
    done = 0
    version, policy = policy_in_force()
    head = branches.living().head()
    for proposal in Proposal.objects.filter(state__in=(State.PASSED, State.APPROVED)):
        if (proposal.pk, head) in _unmoved or proposal.commit == head:
            continue
        if moved := lifecycle.drift(proposal, policy, version.digest):
            words = "; ".join(moved)[:MAX_REASON_CHARS]
            try:
                lifecycle.rescreen(proposal_id=proposal.pk, actor=SYSTEM, reason=words)
                done += 1
            except Denied as denied:  # on the log; somebody was faster, or its name is taken
                if denied.code == "name_exists":
                    _unmoved.add((proposal.pk, head))
    return done


def anchor() -> int:
    """Keep the newest audit checkpoint outside of the database."""
    checkpoints.heartbeat()
    note = checkpoints.anchor().encode()
    repository = branches.living()
    if not note or repository.anchored() == note:
        return 0
    repository.anchor(note)
    return 1


def sign_of_life() -> int:
    """Say that the worker lives, to whoever asks on this machine (`manage.py doctor`)."""
    (settings.VAR / BEAT).touch()
    return 0


def reap() -> int:
    """Remove sandbox containers whose owner is gone."""
    return len(get_backend(settings.SANDBOX_BACKEND).reap())


# (name, function, seconds between two of it)
SWEEPS: tuple[tuple[str, Callable[[], int], float], ...] = (
    ("activate approved", activate_approved, 1.0),
    ("guarded mode", autonomy.consider_all, 2.0),
    ("canaries", canary.judge_canaries, 3.0),
    ("stale evidence", rescreen_stale, 3.0),
    ("dead workers", screening.give_up_dead, 5.0),
    ("silent workers", screenings.give_up_silent, 10.0),
    ("lost tasks", screening.enqueue_lost, 10.0),
    ("expiry", expire, 20.0),
    ("anchor", anchor, 20.0),
    ("sign of life", sign_of_life, 10.0),
    (SANDBOX, sandbox_watch.watch, 60.0),
    (REAPER, reap, 60.0),
)


def add(name: str, sweep: Callable[[], int], seconds: float) -> None:
    """Another app's sweep; once for each name."""
    global SWEEPS  # noqa: PLW0603 - registered while the apps start, never later
    SWEEPS = (*(s for s in SWEEPS if s[0] != name), (name, sweep, seconds))


def run_all() -> dict[str, int]:
    """Each sweep once, in order (tests, and `work --once`)."""
    return {name: function() for name, function, _ in SWEEPS if name not in NEED_AN_ENGINE}
