"""The verbs of people on proposals: approve, reject, withdraw, screen again, upload.

Each asks `lifecycle`, which checks person, state, binding and policy again and logs refusals.
Approving takes the password once more, together with the digest that it is about.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from audit.canonical import text
from django.contrib import messages
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST
from runs.models import Target

from proposals import lifecycle, people, shown
from proposals.acts import record_denial
from proposals.approvals import DENIAL
from proposals.models import Proposal
from proposals.views import case, items_of, person_of, subject_of
from sandbox.report import MAX_FILE_BYTES, DraftError

KEPT = ("target", "name", "title", "summary", "source", "test")


@require_POST
def approve(request: HttpRequest, pk: int) -> HttpResponse:
    """Approve what the page showed, signed with the password."""
    subject, person = subject_of(pk), person_of(request)
    reason, digest = request.POST.get("reason", ""), request.POST.get("binding_digest", "")
    kept = {"approve_reason": reason}
    items = items_of(subject)
    seen = shown.opened(request.session, pk)
    if missing := shown.missing(items, seen):
        words = f"{len(missing)} of {len(items)} items are not opened yet"
        return _not_approved(request, subject, lifecycle.Denied("not_shown", words), kept)
    if not person.check_password(request.POST.get("password", "")):
        words = "the password is wrong: nothing was decided"
        return _not_approved(request, subject, lifecycle.Denied("wrong_password", words), kept)
    return _act(
        request,
        subject,
        lambda: lifecycle.approve(
            proposal_id=pk,
            person=person,
            reason=reason,
            binding_digest=digest,
            shown={i.key: i.digest for i in items},
        ),
        done="Your approval is on record.",
        kept=kept,
    )


def _not_approved(
    request: HttpRequest, subject: Proposal, denied: lifecycle.Denied, kept: dict[str, str]
) -> HttpResponse:
    """What the page itself refuses; on the log like any refusal."""
    record_denial(
        denied,
        actor=people.actor_of(person_of(request)),
        tried="approve",
        subject=f"proposal:{subject.pk}",
        target=subject.target.name,
        verb=DENIAL,
    )
    return case(request, subject, denied=denied, kept=kept)


@require_POST
def reject(request: HttpRequest, pk: int) -> HttpResponse:
    """Reject; the reason goes to the author."""
    subject, person, reason = subject_of(pk), person_of(request), request.POST.get("reason", "")
    return _act(
        request,
        subject,
        lambda: lifecycle.reject(proposal_id=pk, person=person, reason=reason),
        done="Rejected. The author is told why.",
        kept={"reject_reason": reason},
    )


@require_POST
def withdraw(request: HttpRequest, pk: int) -> HttpResponse:
    """The requester takes the proposal back."""
    subject, person, reason = subject_of(pk), person_of(request), request.POST.get("reason", "")
    return _act(
        request,
        subject,
        lambda: lifecycle.withdraw(proposal_id=pk, person=person, reason=reason),
        done="Withdrawn.",
        kept={"withdraw_reason": reason},
    )


@require_POST
def rescreen(request: HttpRequest, pk: int) -> HttpResponse:
    """Screen the same commit again."""
    subject, person, reason = subject_of(pk), person_of(request), request.POST.get("reason", "")
    return _act(
        request,
        subject,
        lambda: lifecycle.rescreen(proposal_id=pk, actor=people.actor_of(person), reason=reason),
        done="It is screened again.",
        kept={"rescreen_reason": reason},
    )


@require_http_methods(["GET", "POST"])
def upload(request: HttpRequest) -> HttpResponse:
    """A person's own draft."""
    if request.method == "GET":
        return _form(request, {"test": "", "source": ""})
    kept = {name: request.POST.get(name, "") for name in KEPT}
    try:
        for name in ("source", "test"):
            if file := request.FILES.get(f"{name}_file"):
                kept[name] = _text_of(file)
        kept = {k: v.replace("\r\n", "\n") for k, v in kept.items()}
        name = kept["name"]
        target = Target.objects.filter(name=text(kept["target"])).first()
        if target is None:
            raise lifecycle.Denied("unknown", "choose a target")
        proposal = lifecycle.upload(
            person=person_of(request),
            target=target,
            title=kept["title"],
            summary=kept["summary"],
            files={
                f"mechanisms/{name}.py": kept["source"].encode(),
                f"tests/test_{name}.py": kept["test"].encode(),
            },
        )
    except (lifecycle.Denied, lifecycle.Refused, DraftError) as denied:
        return _form(request, kept, denied=denied)
    messages.success(request, "Taken. It is screened next.")
    return redirect("proposal", pk=proposal.pk)


def _text_of(file: UploadedFile[Any]) -> str:
    if (file.size or 0) > MAX_FILE_BYTES:
        raise DraftError("too_large", f"a file has at most {MAX_FILE_BYTES} bytes")
    try:
        return str(file.read(), "utf-8")
    except UnicodeDecodeError as error:
        raise DraftError("not_text", f"{file.name} is not UTF-8: {error.reason}") from error


def _form(
    request: HttpRequest, kept: dict[str, str], *, denied: Exception | None = None
) -> HttpResponse:
    names = Target.objects.values_list("name", flat=True)
    context = {
        "targets": names,
        "kept": kept,
        "denied": {"message": str(denied), "help": ""} if denied else None,
    }
    return render(request, "upload.html", context, status=422 if denied else 200)


def _act(
    request: HttpRequest,
    subject: Proposal,
    verb: Callable[[], object],
    *,
    done: str,
    kept: dict[str, str],
) -> HttpResponse:
    try:
        verb()
    except lifecycle.Denied as denied:
        return case(request, subject_of(subject.pk), denied=denied, kept=kept)
    messages.success(request, done)
    return redirect("proposal", pk=subject.pk)
