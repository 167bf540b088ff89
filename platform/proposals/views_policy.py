"""The page of the policy: what is in force, and every version before it. Reading only."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.http import require_GET
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import YamlLexer

from proposals import standing
from proposals.models import PolicyVersion
from proposals.modeltext import mark, reveal
from proposals.views import number_of

VERSIONS = 50


@require_GET
def policy(request: HttpRequest) -> HttpResponse:
    """The policy in force, or an earlier version."""
    wanted = number_of(request.GET.get("version", ""))
    version = PolicyVersion.objects.filter(pk=wanted).first()
    force = standing.in_force(version)
    read = force.policy
    context = {
        "version": force.version,
        "policy": read,
        "problem": force.problem,
        "mode": force.mode,
        "expired": read is not None and timezone.now().date() > read.expires,
        "text": _coloured(force.version.text) if force.version else "",
        "versions": PolicyVersion.objects.select_related("editor")[:VERSIONS],
    }
    return render(request, "policy.html", context)


def _coloured(text: str) -> SafeString:
    formatter = HtmlFormatter(nowrap=True, classprefix="tok-")
    try:
        return mark(highlight(reveal(text), YamlLexer(stripnl=False), formatter))
    except RecursionError:
        return mark_safe(escape(text))  # noqa: S308 - escaped
