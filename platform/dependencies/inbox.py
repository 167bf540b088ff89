"""What requests for packages give to the inbox, and the lock in force to the lifecycle."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.urls import reverse
from proposals.acts import Denied

from dependencies import adopted, decisions
from dependencies.models import DependencyRequest, DependencyReview, LockVersion
from dependencies.states import OPEN, State

MAX_ROWS = 50
Rows = list[dict[str, Any]]
WORDS = {
    State.ASKED: "looking",
    State.UNFIT: "can't be had",
    State.IN_REVIEW: "waiting for review",
    State.BUILD_FAILED: "build failed",
}
TONES = {
    State.ADOPTED: "good",
    State.IN_REVIEW: "turn",
    State.APPROVED: "turn",
    State.BUILDING: "warn",
    State.ASKED: "warn",
    State.BUILD_FAILED: "bad",
    State.UNFIT: "bad",
    State.REJECTED: "bad",
}


def looks_like(key: str) -> object:
    """What the pages of packages show, as a few values that move when it does."""
    requests = DependencyRequest.objects.all()
    if key:
        requests = requests.filter(pk=int(key) if key.isdecimal() else 0)
    return [
        list(requests.values_list("pk", "state", "progress", "changed_at")[:MAX_ROWS]),
        DependencyReview.objects.values_list("pk", "standing").last(),
        LockVersion.objects.count(),
    ]


class KnownPackages:
    """See `proposals.hooks.Packages`."""

    def lock_in_force(self) -> str:
        """The digest of the adopted lock."""
        return adopted.digest_in_force()

    def require(self) -> None:
        """This machine has the lock in force."""
        adopted.require()

    def rows(self, person: User) -> tuple[Rows, Rows]:
        """Open requests: (waiting for this person, waiting for others)."""
        mine: Rows = []
        others: Rows = []
        open_ones = DependencyRequest.objects.filter(state__in=[s.value for s in OPEN])
        for request in open_ones.select_related("requester")[:MAX_ROWS]:
            turn, why = _turn(person, request)
            yours = turn.startswith("Your")
            (mine if yours else others).append(row(request, turn, why))
        return mine, others


def row(request: DependencyRequest, turn: str, why: str) -> dict[str, Any]:
    """One line of the inbox."""
    state = State(request.state)
    return {
        "href": reverse("dependency", args=[request.pk]),
        "title": f"Package {request.package} {request.version}",
        "flag": WORDS.get(state, state.replace("_", " ")),
        "tone": TONES.get(state, ""),
        "meta": f"asked for by {request.requester.get_username()}",
        "when": request.changed_at,
        "turn": turn,
        "why": why,
    }


def _turn(person: User, request: DependencyRequest) -> tuple[str, str]:
    state = State(request.state)
    if state in {State.ASKED, State.BUILDING, State.APPROVED}:
        return "The worker's turn.", request.progress or "It waits for a free worker."
    if state is State.BUILD_FAILED:
        mine = request.requester_id == person.pk
        return ("Your turn." if mine else "Waits to be built again."), request.state_reason[:300]
    try:
        problems = decisions.may_approve(person, request)
        names = ", ".join(r.reviewer.get_username() for r in decisions.approvals_of(request))
        quorum = decisions.binding_of(request)["quorum"]
    except Denied as denied:
        return "Nobody can decide:", denied.message
    progress = f"It needs {quorum} approvals; {names or 'nobody'} approved so far."
    if problems:
        return "Waits for reviewers.", f"{progress} For you: {problems[0]}."
    return "Your review.", progress
