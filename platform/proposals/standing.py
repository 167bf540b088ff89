"""What the pages share about the world: the policy in force, alarms of targets, open stops.

Reads only. A runner whose heartbeat is old, a refused load and a stop are each said loudly, with
what to do about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from django.urls import reverse
from django.utils import timezone
from runs.models import Runner, Target

from proposals import operators, sandbox_watch
from proposals.models import PolicyVersion, Stop
from proposals.policy import Mode, Policy, PolicyError, parse

STALE_SECONDS = 60
BEHIND_SECONDS = 900  # a training may take minutes


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


class Place(StrEnum):
    """Where a runner stands beside what its target should run."""

    RUNS_IT = "runs it"
    BEHIND = "behind"  # it will load it at its next trial boundary
    REFUSED = "refused"
    IDLE = "idle"  # it works on nothing now
    SILENT = "silent"
    NEVER_SEEN = "never seen"


def place_of(runner: Runner, target: Target) -> Place:
    """Where a runner stands, by its last heartbeat."""
    if runner.seen_at is None:
        return Place.NEVER_SEEN
    if runner.observed_state == "idle":
        return Place.IDLE
    if is_stale(runner):
        return Place.SILENT
    if runner.observed_version < target.desired_version:
        return Place.BEHIND
    same = runner.observed_digest == target.desired_digest
    return Place.RUNS_IT if runner.observed_state == "live" and same else Place.REFUSED


def runner_rows(target: Target) -> list[dict[str, Any]]:
    """A target's runners with what the page says about each."""
    now = timezone.now()
    return [
        {
            "runner": runner,
            "place": place_of(runner, target),
            "stale": is_stale(runner),
            "agrees": bool(runner.observed_digest)
            and runner.observed_digest == target.desired_digest,
            "revoked": runner.revoked_at is not None,
            "expired": runner.token_expires_at <= now,
        }
        for runner in target.runners.all()
    ]


def convergence(target: Target, rows: list[dict[str, Any]]) -> str:
    """How many of the runners that work now run what the target should run."""
    working = [r for r in rows if r["place"] in {Place.RUNS_IT, Place.BEHIND, Place.REFUSED}]
    if not target.desired_version or not working:
        return ""
    there = sum(r["place"] is Place.RUNS_IT for r in working)
    return f"{there} of {len(working)} working runners run version {target.desired_version}"


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
                    help=f"{runner.observed_mechanism or 'Nothing'} runs there. "
                    f"{_elsewhere(target, runner)}",
                )
            )
        if row["place"] is Place.BEHIND and target.desired_since is not None:
            waited = (timezone.now() - target.desired_since).total_seconds()
            if waited > BEHIND_SECONDS:
                found.append(
                    Alarm(
                        title=f"{runner.name} is behind",
                        text=f"It runs version {runner.observed_version}; version "
                        f"{target.desired_version} is desired since {waited / 60:.0f} min.",
                        help="A runner follows at its next trial boundary: is a training that long?"
                        " Stop the runner if not; it resumes where it stopped.",
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


def _elsewhere(target: Target, refusing: Runner) -> str:
    """What a refusal by one runner means for the target."""
    if target.live_version == refusing.observed_version:
        return "Another runner runs that version; if it was approved, the canary takes it back."
    return "Nothing of the refused version is live."


def banners() -> list[dict[str, str]]:
    """What holds people up, for the head of every page: a sandbox that does not hold, open stops,
    broken entries of the library."""
    found = []
    if problem := sandbox_watch.said():
        title = "The sandbox does not hold: nothing is screened"
        found.append({"title": title, "text": problem, "href": reverse("proposals")})
    for stop in Stop.objects.filter(released_at__isnull=True).select_related("target"):
        what = f"Target {stop.target.name} is stopped" if stop.target else "Autonomy is stopped"
        href = reverse("target", args=[stop.target.name]) if stop.target else reverse("targets")
        found.append({"title": what, "text": f"{stop.engaged_by}: {stop.reason}", "href": href})
    for words in operators.problems():
        text = f"{words}. It counts for nothing: its variants are new code like any other."
        title = "An entry of the library of operators does not hold"
        found.append({"title": title, "text": text, "href": reverse("operators")})
    return found
