"""What the pages share about the world: the policy in force, alarms of targets, open stops.

Reads only. A runner whose heartbeat is old, a refused load and a stop are each said loudly, with
what to do about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.urls import reverse
from django.utils import timezone
from runs.models import Runner, Target

from proposals.models import PolicyVersion, Stop
from proposals.policy import Mode, Policy, PolicyError, parse

STALE_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class InForce:
    """The newest policy version, parsed; `problem` says why it can't be used."""

    version: PolicyVersion | None
    policy: Policy | None
    problem: str = ""

    @property
    def mode(self) -> Mode:
        """The mode now; manual where there is no policy that can be read."""
        return self.policy.mode_at(timezone.now()) if self.policy else Mode.MANUAL


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """One thing that is wrong with a target, and what to do."""

    title: str
    text: str
    help: str


def in_force(version: PolicyVersion | None = None) -> InForce:
    """The policy in force, or the version that is given."""
    version = version or PolicyVersion.objects.first()
    if version is None:
        return InForce(version=None, policy=None, problem="no policy is loaded")
    try:
        return InForce(version=version, policy=parse(version.text))
    except PolicyError as error:
        return InForce(version=version, policy=None, problem=str(error))


def is_stale(runner: Runner) -> bool:
    """Whether a runner that was heard of is silent for too long."""
    if runner.seen_at is None or runner.revoked_at is not None:
        return False
    return timezone.now() - runner.seen_at > timedelta(seconds=STALE_SECONDS)


def runner_rows(target: Target) -> list[dict[str, Any]]:
    """A target's runners with what the page says about each."""
    now = timezone.now()
    return [
        {
            "runner": runner,
            "stale": is_stale(runner),
            "agrees": bool(runner.observed_digest)
            and runner.observed_digest == target.desired_digest,
            "revoked": runner.revoked_at is not None,
            "expired": runner.token_expires_at <= now,
        }
        for runner in target.runners.all()
    ]


def open_stop(target: Target | None) -> Stop | None:
    """The open stop of a target; None names autonomy."""
    scope = Stop.Scope.TARGET if target else Stop.Scope.AUTONOMY
    stops = Stop.objects.filter(scope=scope, target=target, released_at__isnull=True)
    return stops.prefetch_related("releases__person").first()


def alarms(target: Target, rows: list[dict[str, Any]], stop: Stop | None) -> list[Alarm]:
    """What is wrong with a target now, worst first."""
    found = []
    if stop is not None:
        found.append(
            Alarm(
                title=f"{target.name} is stopped",
                text=f"{stop.engaged_by}: {stop.reason}",
                help="Its runners start no further trial until enough reviewers agree to release.",
            )
        )
    for row in rows:
        runner = row["runner"]
        if runner.observed_state == "refused":
            found.append(
                Alarm(
                    title=f"{runner.name} refused to load version {runner.observed_version}",
                    text=runner.observed_reason or "it gave no reason",
                    help=f"{runner.observed_mechanism or 'The earlier mechanism'} still runs there."
                    " Nothing of the refused version is live.",
                )
            )
        if row["stale"]:
            seconds = int((timezone.now() - runner.seen_at).total_seconds())
            found.append(
                Alarm(
                    title=f"{runner.name} is silent",
                    text=f"Last heartbeat {seconds} s ago; it should come every few seconds.",
                    help="Is the process alive, and can it reach this platform? It resumes where "
                    "it stopped: no trial is lost.",
                )
            )
    return found


def banners() -> list[dict[str, str]]:
    """Open stops, for the head of every page."""
    found = []
    for stop in Stop.objects.filter(released_at__isnull=True).select_related("target"):
        what = f"Target {stop.target.name} is stopped" if stop.target else "Autonomy is stopped"
        href = reverse("target", args=[stop.target.name]) if stop.target else reverse("targets")
        found.append({"title": what, "text": f"{stop.engaged_by}: {stop.reason}", "href": href})
    return found
