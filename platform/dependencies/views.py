"""The pages of packages: what is in the image, what was asked for, one request, its verbs.

All logged-in people may read. Each verb checks person, state and binding again and logs refusals;
approving takes the password once more, together with the digest that it is about.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from audit.canonical import digest as digest_of
from audit.models import Entry
from django.contrib import messages
from django.contrib.auth.models import User
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from proposals import people, standing
from proposals.acts import Denied, record_denial
from proposals.views import number_of, person_of

from dependencies import adopted, builds, decisions, inbox, verbs
from dependencies.models import DependencyRequest, LockVersion
from dependencies.states import TRANSITIONS, State, Verb
from sandbox.errors import InfrastructureError

PAGE_SIZE = 30
HISTORY = 60
MAX_NATIVE_SHOWN = 8
KEPT = ("package", "version", "modules", "reason", "proposal")


@require_GET
def packages(request: HttpRequest) -> HttpResponse:
    """The lock in force, the locks before it, and every request."""
    return _packages(request)


def _packages(request: HttpRequest, denied: Denied | None = None) -> HttpResponse:
    rows = DependencyRequest.objects.select_related("requester")
    page = Paginator(rows, PAGE_SIZE).get_page(request.GET.get("page"))
    try:
        lock, problem = adopted.lock_in_force(), ""
    except InfrastructureError as error:
        lock, problem = None, str(error)
    force = standing.in_force()
    person = person_of(request)
    context = {
        "page_obj": page,
        "rows": [{"request": r, **_pill(r)} for r in page],
        "lock": lock,
        "lock_problem": problem,
        "in_force": adopted.newest(),
        "versions": LockVersion.objects.select_related("request", "restores")[:20],
        "may_roll_back": force.policy is not None and people.may_roll_back(person, force.policy),
        "denied": denied,
    }
    return render(request, "dependencies.html", context, status=409 if denied else 200)


@require_GET
def lock(request: HttpRequest) -> HttpResponse:
    """The lock in force as a file, for a runner's machine (`python -m sandbox image --lock`)."""
    data = adopted.lock_in_force().to_bytes()
    headers = {"Content-Disposition": 'attachment; filename="lock.json"'}
    return HttpResponse(data, content_type="application/json", headers=headers)


@require_http_methods(["GET", "POST"])
def new(request: HttpRequest) -> HttpResponse:
    """Ask for a package."""
    if request.method == "GET":
        return _form(request, {name: request.GET.get(name, "")[:100] for name in KEPT})
    kept = {name: request.POST.get(name, "") for name in KEPT}
    try:
        made = verbs.ask(
            person=person_of(request),
            pin=f"{kept['package'].strip()}=={kept['version'].strip()}",
            modules=kept["modules"].replace("\r\n", "\n"),
            reason=kept["reason"],
            proposal_id=number_of(kept["proposal"]) or None,
        )
    except Denied as denied:
        return _form(request, kept, denied)
    messages.success(request, "Asked. The worker looks at what would come in.")
    return redirect("dependency", pk=made.pk)


def _form(request: HttpRequest, kept: dict[str, str], denied: Denied | None = None) -> HttpResponse:
    context = {"kept": kept, "denied": denied}
    return render(request, "dependency_new.html", context, status=422 if denied else 200)


@require_GET
def request_page(request: HttpRequest, pk: int) -> HttpResponse:
    """One request with everything that a decision needs."""
    return _case(request, _get(pk))


@require_POST
def approve(request: HttpRequest, pk: int) -> HttpResponse:
    """Approve what the page showed, signed with the password."""
    subject, person = _get(pk), person_of(request)
    reason, digest = request.POST.get("reason", ""), request.POST.get("binding_digest", "")
    kept = {"approve_reason": reason}
    if not person.check_password(request.POST.get("password", "")):
        wrong = Denied("wrong_password", "the password is wrong: nothing was decided")
        record_denial(
            wrong,
            actor=people.actor_of(person),
            tried="approve",
            subject=f"dependency:{pk}",
            verb=verbs.DENIAL,
        )
        return _case(request, subject, denied=wrong, kept=kept)
    return _act(
        request,
        subject,
        lambda: decisions.approve(
            request_id=pk, person=person, reason=reason, binding_digest=digest
        ),
        done="Your approval is on record.",
        kept=kept,
    )


@require_POST
def reject(request: HttpRequest, pk: int) -> HttpResponse:
    """Reject, with a reason."""
    person, reason = person_of(request), request.POST.get("reason", "")
    return _act(
        request,
        _get(pk),
        lambda: decisions.reject(request_id=pk, person=person, reason=reason),
        done="Rejected. Lock and image stay as they are.",
        kept={"reject_reason": reason},
    )


@require_POST
def withdraw(request: HttpRequest, pk: int) -> HttpResponse:
    """Take it back."""
    person, reason = person_of(request), request.POST.get("reason", "")
    return _act(
        request,
        _get(pk),
        lambda: verbs.withdraw(request_id=pk, person=person, reason=reason),
        done="Withdrawn.",
        kept={"withdraw_reason": reason},
    )


@require_POST
def build(request: HttpRequest, pk: int) -> HttpResponse:
    """Have a failed build tried again."""
    person, reason = person_of(request), request.POST.get("reason", "")
    return _act(
        request,
        _get(pk),
        lambda: builds.again(request_id=pk, person=person, reason=reason),
        done="It is built again.",
        kept={"build_reason": reason},
    )


@require_POST
def rollback(request: HttpRequest, generation: int) -> HttpResponse:
    """Put an earlier lock in force again."""
    person, reason = person_of(request), request.POST.get("reason", "")
    try:
        builds.roll_back(generation=generation, person=person, reason=reason)
    except Denied as denied:
        return _packages(request, denied)
    messages.success(request, "Rolled back. What was screened with the other image is stale now.")
    return redirect("dependencies")


# --- one request ---


def _case(
    request: HttpRequest,
    subject: DependencyRequest,
    *,
    denied: Denied | None = None,
    kept: dict[str, str] | None = None,
) -> HttpResponse:
    person, record = person_of(request), subject.record
    wheels = [
        {
            **w,
            **{f"{name}_words": ", ".join(w[name]) for name in ("needs", "top", "left_out")},
            "native_words": ", ".join(w["native"][:MAX_NATIVE_SHOWN]),
            "native_count": len(w["native"]),
            "native_more": len(w["native"]) > MAX_NATIVE_SHOWN,
        }
        for w in record.get("wheels", [])
    ]
    reviews = list(subject.reviews.select_related("reviewer"))
    context = {
        "subject": subject,
        "record": record,
        "wheels": wheels,
        "total_bytes": sum(w["unpacked_bytes"] for w in wheels),
        "diff": [(_tone(line), line) for line in record.get("diff", "").splitlines()[2:]],
        "vulnerable": _vulnerable(record),
        "reviews": reviews,
        "approvals": sum(r.decision == "approve" and r.standing != "voided" for r in reviews),
        "adopted_as": subject.locks.first(),
        "history": Entry.objects.filter(subject=f"dependency:{subject.pk}")[:HISTORY],
        "denied": denied,
        "kept": kept or {},
        **_pill(subject),
        **_rights(person, subject),
        **_binding(subject),
    }
    return render(request, "dependency.html", context, status=409 if denied else 200)


def _pill(subject: DependencyRequest) -> dict[str, str]:
    state = State(subject.state)
    return {
        "state_words": inbox.WORDS.get(state, state.replace("_", " ")),
        "state_tone": inbox.TONES.get(state, ""),
    }


def _vulnerable(record: dict[str, Any]) -> list[dict[str, Any]]:
    known = record.get("scan", {}).get("vulnerable", {})
    words = ("aliases", "fixed_in")
    return [
        {**one, "package": name, **{f"{w}_words": ", ".join(one[w]) for w in words}}
        for name, advisories in sorted(known.items())
        for one in advisories
    ]


def _tone(line: str) -> str:
    return {"+": "add", "-": "del"}.get(line[:1], "")


def _rights(person: User, subject: DependencyRequest) -> dict[str, Any]:
    """What this person may do here; the verbs check it again."""
    state, force = State(subject.state), standing.in_force()
    reviewer = force.policy is not None and people.is_reviewer(person, force.policy)
    decidable = state is State.IN_REVIEW
    try:
        cannot = decisions.may_approve(person, subject) if decidable else []
        problems = (
            decisions.policy_problems(force.policy, subject.record)
            if force.policy and subject.record
            else []
        )
        may_build = state is State.BUILD_FAILED and builds.may_build_again(person, subject)
    except Denied as denied:
        cannot, problems, may_build = [denied.message], [], False
    return {
        "decidable": decidable,
        "cannot": cannot,
        "denied_by_policy": problems,
        "may_decide": reviewer and (state, Verb.REJECT) in TRANSITIONS,
        "may_withdraw": subject.requester_id == person.pk and (state, Verb.WITHDRAW) in TRANSITIONS,
        "may_build": may_build,
    }


def _binding(subject: DependencyRequest) -> dict[str, Any]:
    try:
        binding = decisions.binding_of(subject)
    except Denied:  # no record yet, or no policy: nothing to bind to
        return {"binding": [], "binding_digest": "", "quorum": 0}
    rows = [(key, str(value)) for key, value in binding.items()]
    return {"binding": rows, "binding_digest": digest_of(binding), "quorum": binding["quorum"]}


def _get(pk: int) -> DependencyRequest:
    related = ("requester", "proposal")
    return get_object_or_404(DependencyRequest.objects.select_related(*related), pk=pk)


def _act(
    request: HttpRequest,
    subject: DependencyRequest,
    verb: Callable[[], object],
    *,
    done: str,
    kept: dict[str, str],
) -> HttpResponse:
    try:
        verb()
    except Denied as denied:
        return _case(request, _get(subject.pk), denied=denied, kept=kept)
    messages.success(request, done)
    return redirect("dependency", pk=subject.pk)
