"""The inbox: open proposals sorted by whose turn it is, each with the reason in words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.auth.models import User
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from runs.models import Target

from proposals import hooks, people, standing
from proposals.models import Proposal, Review, Screening, Stop
from proposals.policy import Policy
from proposals.states import OPEN, State

MAX_OPEN = 200
RECENT = 8
# Texts of many kilobytes that no list shows.
HEAVY = ("rounds", "diagnosis", "summary", "parameters")
Rows = list[dict[str, Any]]


def boxes(request: HttpRequest, person: User) -> list[dict[str, Any]]:
    """The four boxes of the inbox for one person."""
    mine, others, screening = work_of(request, person)
    reviewer = (policy := standing.in_force().policy) is not None and people.is_reviewer(
        person, policy
    )
    can = (
        "A proposal comes here once its screening has passed and you may decide on it."
        if reviewer
        else "You are no reviewer: proposals never wait for you, but you can read everything."
    )
    return [
        {"title": "Waiting for you", "rows": mine, "empty": "Nothing waits for you.", "next": can,
         "link": reverse("proposals"), "link_text": "See all proposals"},
        {"title": "Waiting for others", "rows": others, "empty": "Nothing waits for others.",
         "next": "Proposals that you can't decide on stand here, with the reason."},
        {"title": "Screening", "rows": screening, "empty": "Nothing is being screened.",
         "next": "A draft comes here from a runner, or from", "link": reverse("upload"),
         "link_text": "you"},
        {"title": "Recently decided", "rows": _recent(), "empty": "Nothing was decided yet.",
         "next": "Approved, rejected and failed proposals stand here."},
    ]  # fmt: skip


def work_of(request: HttpRequest, person: User) -> tuple[Rows, Rows, Rows]:
    """Open work, sorted once for each request: its page and the frame around it show it."""
    kept = vars(request)
    if "work" not in kept:
        kept["work"] = sort(person)
    return kept["work"]  # type: ignore[no-any-return]


def listed(rows: QuerySet[Proposal]) -> QuerySet[Proposal]:
    """Rows for a list: nothing that only the page of one proposal shows is read."""
    light = Prefetch("screenings", Screening.objects.defer("report"))
    return rows.select_related("target").defer(*HEAVY).prefetch_related(light)


def sort(person: User) -> tuple[Rows, Rows, Rows]:
    """Open work: (waiting for this person, waiting for others, in screening)."""
    policy = (force := standing.in_force()).policy
    mine, others, screening = _alarms(person, policy), [], []
    reviewer = policy is not None and people.is_reviewer(person, policy)
    open_ones = listed(Proposal.objects.filter(state__in=[s.value for s in OPEN]))
    open_ones = open_ones.select_related("target", "requester", "runner")
    for proposal in open_ones.prefetch_related("reviews__reviewer", "target__runners")[:MAX_OPEN]:
        state = State(proposal.state)
        row = _row(proposal)
        if state in {State.SUBMITTED, State.SCREENING}:
            screening.append({**row, **_screening_words(proposal)})
        elif state is not State.PASSED:
            others.append({**row, **_waiting_words(proposal, state)})
        elif policy is None or force.version is None:
            others.append({**row, "turn": "Nobody can decide:", "why": force.problem})
        else:
            progress, valid = _quorum_words(proposal), valid_approvals(proposal.reviews.all())
            problems = [f"only the group {policy.people.roles.review} may decide"]
            if reviewer:
                found = people.reviewer_problems(person, proposal, force.version, valid)
                problems = [words for _, words in found]
            if problems:
                why = f"{progress} For you: {problems[0]}."
                others.append({**row, "turn": "Waits for reviewers.", "why": why})
            else:
                mine.append({**row, "turn": "Your review.", "why": progress})
    packages = hooks.rows_of(person)
    return mine + packages[0], others + packages[1], screening


def _row(proposal: Proposal) -> dict[str, Any]:
    return {
        "href": reverse("proposal", args=[proposal.pk]),
        "title": proposal.title,
        "state": proposal.state,
        "meta": f"#{proposal.pk} {proposal.name} for {proposal.target.name}",
        "when": proposal.changed_at,
    }


def latest(screenings: Iterable[Screening]) -> Screening | None:
    """The newest of some screenings."""
    return max(screenings, key=lambda s: s.pk, default=None)


def valid_approvals(reviews: Iterable[Review]) -> list[Review]:
    """Approvals that count now."""
    return [
        r for r in reviews
        if r.decision == Review.Decision.APPROVE and r.standing == Review.Standing.VALID
    ]  # fmt: skip


def counted_approvals(reviews: Iterable[Review]) -> list[Review]:
    """Approvals that count, or have counted until they were used."""
    return [
        r
        for r in reviews
        if r.decision == Review.Decision.APPROVE and r.standing != Review.Standing.VOIDED
    ]


def _quorum_words(proposal: Proposal) -> str:
    screening = latest(proposal.screenings.all())
    verdict = screening.verdict if screening else {}
    quorum = int(verdict.get("quorum", 0) or 0)
    names = [
        r.reviewer.get_username() if r.reviewer else "the policy"
        for r in valid_approvals(proposal.reviews.all())
    ]
    risk = f"{verdict.get('risk', 'unknown')} risk"
    need = f"It needs {quorum} approval{'s' if quorum != 1 else ''} ({risk})"
    return f"{need}; {', '.join(names)} approved." if names else f"{need}; nobody has decided yet."


def _screening_words(proposal: Proposal) -> dict[str, Any]:
    screening = latest(proposal.screenings.all())
    if screening is None or screening.phase == Screening.Phase.QUEUED:
        return {"turn": "A worker's turn.", "why": "It waits for a free worker."}
    if screening.outcome == "could_not_look":
        why = screening.progress or "the sandbox could not be used"
        return {"turn": "Could not look.", "why": f"{why}; an operator should run `make doctor`."}
    why = screening.progress or "The checks are running."
    return {"turn": "The sandbox's turn.", "why": why}


def _waiting_words(proposal: Proposal, state: State) -> dict[str, Any]:
    if state is State.APPROVED:
        return {"turn": "The platform's turn.", "why": "Approved; the worker activates it next."}
    names = ", ".join(r.name for r in proposal.target.runners.all()) or "no runner"
    why = f"{names} loads it at the next trial boundary and attests what it runs."
    return {"turn": "The runner's turn.", "why": why}


def _alarms(person: User, policy: Policy | None) -> Rows:
    """Stops to release and targets in trouble, for those who can do something about it."""
    rows: Rows = []
    if policy is None or not people.may_stop(person, policy):
        return rows
    if people.is_reviewer(person, policy):
        stops = Stop.objects.filter(released_at__isnull=True).exclude(releases__person=person)
        for stop in stops.select_related("target"):
            name = stop.target.name if stop.target else "autonomy"
            href = reverse("target", args=[name]) if stop.target else reverse("targets")
            rows.append(
                {"href": href, "title": f"{name} is stopped", "flag": "stopped", "tone": "bad",
                 "meta": stop.engaged_by, "when": stop.created_at, "why": stop.reason,
                 "turn": "Agree to release, or not."}
            )  # fmt: skip
    for target in Target.objects.prefetch_related("runners"):
        for alarm in standing.alarms(target, standing.runner_rows(target), None):
            rows.append(
                {"href": reverse("target", args=[target.name]), "title": alarm.title,
                 "flag": "trouble", "tone": "bad", "meta": target.name, "when": None,
                 "turn": alarm.help, "why": alarm.text}
            )  # fmt: skip
    return rows


def _recent() -> Rows:
    closed = Proposal.objects.exclude(state__in=[s.value for s in OPEN])
    rows = []
    newest = listed(closed).prefetch_related("reviews__reviewer").order_by("-changed_at")
    for proposal in newest[:RECENT]:
        deciders = [
            f"{r.reviewer.get_username() if r.reviewer else 'the policy'}: {r.reason}"
            for r in proposal.reviews.all()
        ]
        why = proposal.state_reason or " · ".join(deciders[-2:])
        rows.append({**_row(proposal), "turn": "", "why": why[:300]})
    return rows
