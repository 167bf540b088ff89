"""The pages of targets and their verbs: roll back, stop, release; and the kill switch of autonomy.

Reading is for all logged-in people. Each verb asks `lifecycle`, which checks the person and logs
a refusal; a refused form comes back with what was typed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST
from runs.models import Target

from proposals import lifecycle, people, standing
from proposals.models import Activation, Stop
from proposals.views import number_of, person_of

RUNS = 8
VERSIONS = 50


@require_GET
def targets(request: HttpRequest) -> HttpResponse:
    """All targets, and the switch of autonomy."""
    return _targets(request)


@require_GET
def target(request: HttpRequest, name: str) -> HttpResponse:
    """One target."""
    return _target(request, _get(name))


@require_POST
def rollback(request: HttpRequest, name: str) -> HttpResponse:
    """Bring an earlier version back."""
    subject, reason = _get(name), request.POST.get("reason", "")
    choice = request.POST.get("activation", "")
    return _act(
        request,
        lambda person: lifecycle.roll_back(
            target_id=subject.pk,
            activation_id=number_of(choice),
            actor=people.actor_of(person),
            reason=reason,
        ),
        done=f"{subject.name} goes back; its runners follow at their next trial boundary.",
        again=lambda denied: _target(
            request, subject, denied=denied, kept={"rollback": reason, "activation": choice}
        ),
        to="target",
        name=name,
    )


@require_POST
def stop(request: HttpRequest, name: str) -> HttpResponse:
    """Stop a target."""
    subject, reason = _get(name), request.POST.get("reason", "")
    return _act(
        request,
        lambda person: lifecycle.stop(target_id=subject.pk, person=person, reason=reason),
        done=f"{subject.name} is stopped: no further trial starts.",
        again=lambda denied: _target(request, subject, denied=denied, kept={"stop": reason}),
        to="target",
        name=name,
    )


@require_POST
def release(request: HttpRequest, name: str) -> HttpResponse:
    """Agree to release a target."""
    subject, reason = _get(name), request.POST.get("reason", "")
    return _act(
        request,
        lambda person: _release(standing.open_stop(subject), person, reason),
        done=f"Your word to release {subject.name} is on record.",
        again=lambda denied: _target(request, subject, denied=denied, kept={"release": reason}),
        to="target",
        name=name,
    )


@require_POST
def autonomy_stop(request: HttpRequest) -> HttpResponse:
    """Pull the kill switch of automatic approval."""
    reason = request.POST.get("reason", "")
    return _act(
        request,
        lambda person: lifecycle.stop(person=person, reason=reason),
        done="Autonomous approval is stopped.",
        again=lambda denied: _targets(request, denied=denied, kept={"autonomy": reason}),
        to="targets",
    )


@require_POST
def autonomy_release(request: HttpRequest) -> HttpResponse:
    """Agree to let the policy approve again."""
    reason = request.POST.get("reason", "")
    return _act(
        request,
        lambda person: _release(standing.open_stop(None), person, reason),
        done="Your word to release autonomous approval is on record.",
        again=lambda denied: _targets(request, denied=denied, kept={"release": reason}),
        to="targets",
    )


def _release(stop: Stop | None, person: User, reason: str) -> None:
    if stop is None:
        raise lifecycle.Denied(
            "not_stopped", "nothing is stopped here: somebody released it before"
        )
    lifecycle.release_stop(stop_id=stop.pk, person=person, reason=reason)


def _act(
    request: HttpRequest,
    verb: Callable[[User], object],
    *,
    done: str,
    again: Callable[[lifecycle.Denied], HttpResponse],
    to: str,
    name: str = "",
) -> HttpResponse:
    try:
        verb(person_of(request))
    except lifecycle.Denied as denied:
        return again(denied)
    messages.success(request, done)
    return redirect(to, name=name) if name else redirect(to)


def _get(name: str) -> Target:
    return get_object_or_404(Target, name=name)


def _rights(person: User) -> dict[str, Any]:
    policy = standing.in_force().policy
    if policy is None:
        return {"may_stop": False, "may_roll_back": False, "reviewer": False, "release_quorum": "?"}
    return {
        "may_stop": people.may_stop(person, policy),
        "may_roll_back": people.may_roll_back(person, policy),
        "reviewer": people.is_reviewer(person, policy),
        "release_quorum": policy.people.release_quorum,
    }


def _release_rights(person: User, stop: Stop | None, reviewer: bool) -> dict[str, Any]:
    if stop is None or not reviewer:
        return {"may_release": False, "why_not_release": ""}
    said = any(r.person_id == person.pk for r in stop.releases.all())
    why = "You have agreed already; others must too." if said else ""
    return {"may_release": not said, "why_not_release": why}


def _targets(
    request: HttpRequest,
    *,
    denied: lifecycle.Denied | None = None,
    kept: dict[str, str] | None = None,
) -> HttpResponse:
    person, switch = person_of(request), standing.open_stop(None)
    rows = []
    for subject in Target.objects.prefetch_related("runners"):
        runners = standing.runner_rows(subject)
        alarms = standing.alarms(subject, runners, standing.open_stop(subject))
        rows.append(
            {
                "target": subject,
                "runners": runners,
                "alarms": alarms,
                "convergence": standing.convergence(subject, runners),
            }
        )
    rights = _rights(person)
    context = {
        "targets": rows,
        "mode": standing.in_force().mode if standing.in_force().version else "",
        "autonomy_stop": switch,
        "denied": denied,
        "kept": kept or {},
        **rights,
        **_release_rights(person, switch, rights["reviewer"]),
    }
    return render(request, "targets.html", context, status=409 if denied else 200)


def _target(
    request: HttpRequest,
    subject: Target,
    *,
    denied: lifecycle.Denied | None = None,
    kept: dict[str, str] | None = None,
) -> HttpResponse:
    person, stopped = person_of(request), standing.open_stop(subject)
    runners = standing.runner_rows(subject)
    versions = list(subject.activations.select_related("proposal", "restores")[:VERSIONS])
    for version in versions:
        version.lived = _lived(version)  # type: ignore[attr-defined]
    rights = _rights(person)
    context = {
        "target": subject,
        "runners": runners,
        "alarms": standing.alarms(subject, runners, stopped),
        "convergence": standing.convergence(subject, runners),
        "activations": versions,
        "earlier": [a for a in versions if a.live_at and a.digest != subject.desired_digest],
        "runs": subject.runs.select_related("runner")[:RUNS],
        "stop": stopped,
        "denied": denied,
        "kept": kept or {},
        **rights,
        **_release_rights(person, stopped, rights["reviewer"]),
    }
    return render(request, "target.html", context, status=409 if denied else 200)


def _lived(version: Activation) -> str:
    if version.live_at is None:
        return ""
    minutes = ((version.ended_at or timezone.now()) - version.live_at).total_seconds() / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
