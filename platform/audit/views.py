"""The pages of the audit log: filter, one entry, verification, export.

Reads, but for the two exports' bundle, which is an act and is logged as one. All logged-in people
may read; evidence leaves with auditors and reviewers.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.core.cache import cache
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, transaction
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode
from django.views.decorators.http import require_GET, require_POST

from audit import export as bundles
from audit import keys, query, source
from audit.actors import Actor, ActorKind
from audit.evidence import providers
from audit.log import append
from audit.merkle import leaf_hash
from audit.models import Entry

EXPORTERS = ("auditor", "reviewer")
VERIFY_AT_ONCE = 3000  # entries; beyond, a person asks for it
VERIFIED_SECONDS = 3600
SHOWN_PROBLEMS = 8


@dataclass(frozen=True, kw_only=True)
class Verified:
    """The last verification that this process made, in words."""

    tone: str
    title: str
    text: str
    problems: tuple[str, ...] = ()


def may_export(person: User | AbstractBaseUser | AnonymousUser) -> bool:
    """Auditors and reviewers take evidence out."""
    return isinstance(person, User) and person.groups.filter(name__in=EXPORTERS).exists()


@require_GET
def audit(request: HttpRequest) -> HttpResponse:
    """The log, newest first, filtered."""
    problem, wanted = "", query.Filter()
    try:
        wanted = query.Filter.of(request.GET.dict())
    except query.BadFilter as error:
        problem = f"{error}. Nothing was filtered."
    raw = request.GET.get("page", "1")
    page = query.page(wanted, number=int(raw) if raw.isdecimal() and len(raw) < 9 else 1)
    typed = {
        n: request.GET.get(n, "")[:200]
        for n in ("actor", "verb", "subject", "text", "since", "until")
    }
    context = {
        "page": page,
        "filters": typed,
        "filtered": bool(wanted),
        "filter_problem": problem,
        "verbs": query.verbs(),
        "may_export": may_export(request.user),
        "verified": _verified(),
        "query": urlencode(wanted.as_query()),
    }
    return render(request, "audit.html", context, status=400 if problem else 200)


@require_GET
def entry(request: HttpRequest, seq: int) -> HttpResponse:
    """One entry with its exact bytes."""
    row = get_object_or_404(Entry, seq=seq)
    others = Entry.objects.order_by("seq").values_list("seq", flat=True)
    context = {
        "entry": row,
        "earlier": others.filter(seq__lt=seq).last(),
        "later": others.filter(seq__gt=seq).first(),
        "intact": leaf_hash(row.body.encode()).hex() == row.digest,
        "pretty": _pretty(row.body),
        "subject_href": _href(row.subject),
    }
    return render(request, "entry.html", context)


@require_POST
def verify(request: HttpRequest) -> HttpResponse:
    """Verify the whole log now."""
    _examine()
    return redirect("audit")


@require_POST
def export(request: HttpRequest) -> HttpResponseBase:
    """The evidence bundle as a download; taking it is on the log."""
    actor = _actor(request)
    if not may_export(request.user):
        with transaction.atomic():
            append(actor=actor, verb="audit.export_denied", subject="audit")
        raise PermissionDenied
    with tempfile.TemporaryDirectory(prefix="escapement-export-") as folder:
        path = Path(folder) / f"evidence-{timezone.now():%Y%m%d-%H%M%S}.zip"
        try:
            bundles.write(path, actor=actor, reason=request.POST.get("reason", "")[:2000])
        except bundles.ExportFailed as error:
            context = {"title": "No evidence was exported", "text": str(error)}
            return render(request, "error.html", context, status=500)
        # The open file outlives its name: nothing is left behind, whatever the reader does.
        return FileResponse(path.open("rb"), as_attachment=True, filename=path.name)


def _actor(request: HttpRequest) -> Actor:
    person = request.user
    return Actor(kind=ActorKind.PERSON, id=str(person.pk), name=person.get_username())


def _verified() -> Verified:
    """What is known of the log's integrity; a short log is verified whenever it has grown."""
    newest = Entry.objects.values_list("seq", flat=True).first() or 0
    known = cache.get("audit-verified")
    if known and (known[0] == newest or newest > VERIFY_AT_ONCE):
        seq, verified = known
        if seq == newest:
            return verified  # type: ignore[no-any-return]
        tone = verified.tone if verified.tone == "bad" else "warn"
        more = f"{newest - seq} entries are newer. {verified.text}"
        return Verified(tone=tone, title=verified.title, text=more, problems=verified.problems)
    if newest > VERIFY_AT_ONCE:
        text = f"{newest} entries take a while: ask for it."
        return Verified(tone="warn", title="Not verified yet.", text=text)
    return _examine()


def _examine() -> Verified:
    newest = Entry.objects.values_list("seq", flat=True).first() or 0
    try:
        key = keys.public_path().read_text("ascii").strip()
        anchors = [a for provider in providers() for a in provider.anchors()]
        result = source.examine("default", key=key, anchors=anchors)
    except (source.CouldNotLook, OSError, ValueError, DatabaseError) as error:
        text = f"{error}. Run `manage.py verify_audit`."
        return Verified(tone="bad", title="The log could not be verified:", text=text)
    when = f"{timezone.now():%H:%M:%S} UTC"
    if result.ok:
        text = f"{result.entries} entries: chain, signatures and rules hold. Checked at {when}."
        verified = Verified(tone="good", title="Verified.", text=text)
    else:
        problems = tuple(str(p) for p in result.problems[:SHOWN_PROBLEMS])
        count = len(result.problems)
        title = f"The log does not hold: {count} problem{'' if count == 1 else 's'}."
        if not count:
            title = f"Signatures were {result.signatures}."
        text = f"Checked at {when}. Stop approving, keep a copy, run `manage.py verify_audit`."
        verified = Verified(tone="bad", title=title, text=text, problems=problems)
    cache.set("audit-verified", (newest, verified), VERIFIED_SECONDS)
    return verified


def _pretty(body: str) -> str:
    try:
        return json.dumps(json.loads(body).get("data", {}), indent=2, sort_keys=True)
    except (ValueError, AttributeError):
        return "(the body can't be read)"


def _href(subject: str) -> str:
    kind, _, key = subject.partition(":")
    if kind == "proposal" and key.isdecimal():
        return reverse("proposal", args=[int(key)])
    if kind == "target" and key.replace("-", "").replace("_", "").isalnum():
        return reverse("target", args=[key])
    return ""
