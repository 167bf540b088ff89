"""The pages of proposals: inbox, list, one proposal, what was opened of it.

All logged-in people may read (the middleware turns everybody else away); what a page offers to
whom follows `people`, and the verbs check it again.
"""

from __future__ import annotations

from typing import Any

from audit.canonical import text
from audit.models import Entry
from django.contrib.auth.models import User
from django.core.paginator import Paginator
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST
from runs.models import Target

from proposals import (
    branches,
    casefile,
    catalogue,
    desk,
    lifecycle,
    people,
    provenance,
    shown,
    standing,
)
from proposals.attribution import production_of
from proposals.models import Proposal, Screening
from proposals.states import TRANSITIONS, State, Verb
from proposals.templatetags.show import WORDS

PAGE_SIZE = 30
HISTORY = 60
MAX_DIGITS = 19


def person_of(request: HttpRequest) -> User:
    """The authenticated person; the middleware has let nobody else through."""
    if not isinstance(request.user, User):
        raise TypeError("a page was reached without an account")
    return request.user


def number_of(raw: str) -> int:
    """The number that a form or an address names; 0, which no row has, where it is none."""
    return int(raw) if raw.isdecimal() and len(raw) < MAX_DIGITS else 0


@require_GET
def inbox(request: HttpRequest) -> HttpResponse:
    """What waits for whom."""
    context = {"boxes": desk.boxes(request, person_of(request))}
    return render(request, "inbox.html", context)


@require_GET
def proposals(request: HttpRequest) -> HttpResponse:
    """Every proposal, filtered."""
    filters = {k: text(request.GET.get(k, "").strip())[:100] for k in ("state", "target", "q")}
    rows = desk.listed(Proposal.objects.all())
    if filters["state"]:
        rows = rows.filter(state=filters["state"])
    if filters["target"]:
        rows = rows.filter(target__name=filters["target"])
    if filters["q"]:
        rows = rows.filter(Q(name__icontains=filters["q"]) | Q(title__icontains=filters["q"]))
    page = Paginator(rows, PAGE_SIZE).get_page(request.GET.get("page"))
    for proposal in page:
        newest = desk.latest(proposal.screenings.all())
        proposal.risk = newest.verdict.get("risk", "") if newest else ""  # type: ignore[attr-defined]
    query = request.GET.copy()
    query.pop("page", None)
    context = {
        "page_obj": page,
        "filters": {**filters, "any": any(filters.values())},
        "states": [(s.value, WORDS.get(s, s.value)) for s in State],
        "targets": Target.objects.values_list("name", flat=True),
        "query": f"{query.urlencode()}&" if query else "",
    }
    return render(request, "proposals.html", context)


@require_GET
def proposal(request: HttpRequest, pk: int) -> HttpResponse:
    """One proposal with everything that a decision needs."""
    return case(request, subject_of(pk))


@require_POST
def opened(request: HttpRequest, pk: int) -> HttpResponse:
    """Record that one item was opened; answers with what is still to be opened."""
    subject = subject_of(pk)
    items = items_of(subject)
    key, digest = request.POST.get("item", ""), request.POST.get("digest", "")
    item = next((i for i in items if i.key == key and i.digest == digest), None)
    if item is not None:
        shown.record(request.session, subject.pk, item)
    if not request.headers.get("HX-Request"):
        return redirect(f"{reverse('proposal', args=[pk])}#decide")
    remaining = shown.missing(items, shown.opened(request.session, subject.pk))
    context = {"proposal": subject, "remaining": remaining, "item_count": len(items)}
    return render(request, "_todo.html", context)


def case(
    request: HttpRequest,
    subject: Proposal,
    *,
    denied: lifecycle.Denied | None = None,
    kept: dict[str, str] | None = None,
) -> HttpResponse:
    """The page of one proposal; after a refusal with its message and what was typed."""
    person, screening = person_of(request), _screening(subject)
    files, repository_problem = casefile.changed_files(subject)
    checks = casefile.findings_by_check(screening)
    anchors = {f.path: f.item.anchor for f in files}
    for finding in (f for c in checks for f in c["findings"]):
        anchor = anchors.get(finding.get("path", ""))
        finding["href"] = f"#{anchor}-L{finding['line']}" if anchor and finding.get("line") else ""
    seen = shown.opened(request.session, subject.pk)
    items = casefile.items_of(files, checks)
    reviews = list(subject.reviews.select_related("reviewer"))
    approvals = len(desk.counted_approvals(reviews))
    context = {
        "proposal": subject,
        "screening": screening,
        "steps": casefile.steps(subject),
        "reason_tone": "bad" if subject.state in {"failed", "refused", "rolled_back"} else "warn",
        "state_reason": ""
        if subject.state in {"passed", "approved", "live"}
        else subject.state_reason,
        "headline": casefile.headline(subject, screening, approvals),
        "diagnosis": casefile.telling_first(subject.diagnosis),
        "files": files,
        "repository_problem": repository_problem,
        "checks": checks,
        "finding_count": sum(len(c["findings"]) for c in checks),
        "replay": casefile.replay_of(screening),
        "provenance": provenance.of(screening),
        "lane": catalogue.lane(subject),
        "nominable": catalogue.nominable(subject),
        "opened_keys": set(seen),
        "remaining": shown.missing(items, seen),
        "item_count": len(items),
        "reviews": reviews,
        "approvals": approvals,
        "quorum": (screening.verdict if screening else {}).get("quorum", 0),
        "history": Entry.objects.filter(subject=f"proposal:{subject.pk}")[:HISTORY],
        "denied": denied,
        "kept": kept or {},
        "form_key": f"{subject.state}-{approvals}",
        **_rights(person, subject),
        **_binding(subject, screening),
        **production_of(subject),
    }
    return render(request, "proposal.html", context, status=409 if denied else 200)


def subject_of(pk: int) -> Proposal:
    """The proposal of an address, or 404."""
    related = ("target", "requester", "runner", "run", "similar_to")
    return get_object_or_404(Proposal.objects.select_related(*related), pk=pk)


def _screening(subject: Proposal) -> Screening | None:
    return subject.screenings.first()


def items_of(subject: Proposal) -> list[shown.Item]:
    """Everything that must be opened before an approval, as it is now."""
    files, _problem = casefile.changed_files(subject)
    return casefile.items_of(files, casefile.findings_by_check(_screening(subject)))


def _rights(person: User, subject: Proposal) -> dict[str, Any]:
    """What this person may do here; the verbs check it again."""
    state, force = State(subject.state), standing.in_force()
    decidable = state is State.PASSED
    reviewer = force.policy is not None and people.is_reviewer(person, force.policy)
    stopper = force.policy is not None and people.may_stop(person, force.policy)
    mine = subject.requester_id == person.pk
    cannot = _cannot(person, subject) if decidable else []
    words = f"Nothing to decide: the proposal is {WORDS.get(state, state).replace('_', ' ')}."
    return {
        "decidable": decidable,
        "free": not decidable or bool(cannot),
        "not_decidable": words,
        "cannot": cannot,
        "may_decide": reviewer and (state, Verb.REJECT) in TRANSITIONS,
        "may_rescreen": (mine or stopper) and (state, Verb.RESCREEN) in TRANSITIONS,
        "may_withdraw": mine and (state, Verb.WITHDRAW) in TRANSITIONS,
    }


def _cannot(person: User, subject: Proposal) -> list[str]:
    try:
        return lifecycle.may_approve(person, subject)
    except (lifecycle.Denied, branches.RepositoryError) as error:
        return [str(error)]


def _binding(subject: Proposal, screening: Screening | None) -> dict[str, Any]:
    if screening is None or screening.outcome != "passed" or screening.phase != "done":
        return {"binding": [], "binding_digest": ""}
    try:
        binding = lifecycle.binding_of(subject)
    except lifecycle.Denied:  # nothing to approve, so nothing to bind to
        return {"binding": [], "binding_digest": ""}
    rows = [(key, str(value)) for key, value in binding.items()]
    return {"binding": rows, "binding_digest": lifecycle.binding_digest(binding)}
