"""The library of approved operators: its page, and its verbs (nominate, agree, decline, revoke).

Reading is for all logged-in people. Each verb asks `lifecycle`, which checks the person and logs a
refusal; a refused form comes back with what was typed. What widens takes the password once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from proposals import branches, catalogue, lifecycle, people, standing
from proposals.models import OperatorEntry, Proposal
from proposals.views import person_of
from sandbox.operators import Number, OperatorError

MAX_NUMBER_CHARS = 40
Denied = lifecycle.Denied


@require_GET
def operators(request: HttpRequest) -> HttpResponse:
    """Every entry of the library."""
    return _page(request)


@require_http_methods(["GET", "POST"])
def nominate(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask to approve a proposal's mechanism as an operator, with bounds for its parameters."""
    subject = get_object_or_404(Proposal.objects.select_related("target", "runner"), pk=pk)
    if request.method == "GET":
        return _form(request, subject)
    try:
        _fresh(request)
        bounds = _bounds(request, catalogue.parameters(subject))
        lifecycle.nominate(
            proposal_id=pk,
            person=person_of(request),
            bounds=bounds,
            reason=request.POST.get("reason", ""),
        )
    except (Denied, branches.RepositoryError, OperatorError) as denied:
        return _form(request, subject, denied=denied)
    messages.success(request, f"Your word for {subject.name} is on record.")
    return redirect("operators")


@require_POST
def agree(request: HttpRequest, pk: int) -> HttpResponse:
    """One more word for a nomination."""

    def verb(person: User, reason: str) -> object:
        _fresh(request)
        bound = request.POST.get("terms_digest", "")
        return lifecycle.agree(entry_id=pk, person=person, terms_digest=bound, reason=reason)

    return _act(request, pk, verb, "Your word is on record.")


@require_POST
def decline(request: HttpRequest, pk: int) -> HttpResponse:
    """No to a nomination."""
    return _act(
        request,
        pk,
        lambda person, reason: lifecycle.decline(entry_id=pk, person=person, reason=reason),
        "Declined.",
    )


@require_POST
def revoke(request: HttpRequest, pk: int) -> HttpResponse:
    """Take an approved operator back."""
    return _act(
        request,
        pk,
        lambda person, reason: lifecycle.revoke(entry_id=pk, person=person, reason=reason),
        "Revoked: its variants are new code from now on.",
    )


def _act(
    request: HttpRequest, pk: int, verb: Callable[[User, str], object], done: str
) -> HttpResponse:
    get_object_or_404(OperatorEntry, pk=pk)
    reason = request.POST.get("reason", "")
    try:
        verb(person_of(request), reason)
    except Denied as denied:
        return _page(request, denied=denied, kept={"entry": pk, "reason": reason})
    messages.success(request, done)
    return redirect("operators")


def _fresh(request: HttpRequest) -> None:
    """What widens takes the password once more."""
    if not person_of(request).check_password(request.POST.get("password", "")):
        raise Denied("wrong_password", "the password is wrong: nothing was decided")


def _bounds(request: HttpRequest, known: list[catalogue.Field]) -> dict[str, tuple[Number, Number]]:
    """The bounds that were typed, for each parameter that may have some. Raises Denied."""
    return {
        field.name: (
            _number(request.POST.get(f"low-{field.name}", ""), field.name),
            _number(request.POST.get(f"high-{field.name}", ""), field.name),
        )
        for field in known
        if field.bounded
    }


def _number(text: str, name: str) -> Number:
    text = text.strip()[:MAX_NUMBER_CHARS]
    try:
        return int(text) if text.lstrip("-").isdecimal() else float(text)
    except ValueError as error:
        raise Denied("bad_bounds", f"{name}: {text!r} is no number") from error


def _page(
    request: HttpRequest, *, denied: Denied | None = None, kept: dict[str, Any] | None = None
) -> HttpResponse:
    person, policy = person_of(request), standing.in_force().policy
    context = {
        "cards": catalogue.cards(person),
        "past": catalogue.past(),
        "may_revoke": policy is not None and people.may_stop(person, policy),
        "may_review": policy is not None and people.is_reviewer(person, policy),
        "quorum": policy.people.quorum.high if policy else 0,
        "denied": denied,
        "kept": kept or {},
    }
    return render(request, "operators.html", context, status=409 if denied else 200)


def _form(
    request: HttpRequest, subject: Proposal, *, denied: Exception | None = None
) -> HttpResponse:
    try:
        fields, problem = catalogue.parameters(subject), ""
    except (branches.RepositoryError, OperatorError) as error:
        fields, problem = [], str(error)
    for field in fields:
        field.low = request.POST.get(f"low-{field.name}", field.low)
        field.high = request.POST.get(f"high-{field.name}", field.high)
    policy = standing.in_force().policy
    context = {
        "proposal": subject,
        "fields": fields,
        "problem": problem,
        "quorum": policy.people.quorum.high if policy else 0,
        "cannot": catalogue.cannot(person_of(request), subject),
        "denied": denied,
        "kept": request.POST,
    }
    return render(request, "operator_new.html", context, status=409 if denied else 200)
