"""Taking runs and trials in: idempotent, strict, and never against what is stored.

Facts only. What a version of a target is, the lifecycle knows: it registers `version_digest`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from audit import log
from audit.actors import Actor, ActorKind
from django.db import transaction
from django.db.models import Max

from runner.protocol import RunReport, TrialBatch, TrialReport
from runs.models import Run, Runner, Target, Trial
from runs.texts import cleaned

VersionDigest = Callable[[Target, int], str | None]
_version_digest: list[VersionDigest] = []

# What may change between two reports of one run; everything else is part of what it is.
CHANGING = (
    "state",
    "sigma",
    "noise",
    "result",
    "measuring",
    "frozen",
    "guidance",
    "level2",
    "host",
)


class Contradiction(Exception):
    """A report that disagrees with what is stored; `code` is for the door."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def register_versions(function: VersionDigest) -> None:
    """Tell how to find the digest of a version of a target (None: there is no such version)."""
    _version_digest[:] = [function]


def store_run(*, runner: Runner, report: RunReport) -> Run:
    """Store a run, or what changed of it. Raises Contradiction."""
    run_id = _uuid(report.run_id)
    values: dict[str, Any] = report.model_dump(exclude={"run_id", "level2"})
    values["level2"] = report.level2.model_dump(mode="json") if report.level2 else None
    values = cleaned(values)
    with transaction.atomic():
        run = Run.objects.select_for_update().filter(run_id=run_id).first()
        if run is None:
            return Run.objects.create(run_id=run_id, runner=runner, target=runner.target, **values)
        if run.runner_id != runner.pk:
            _refuse(runner, "conflict", "another runner reported this run_id")
        for name, value in values.items():
            if name in CHANGING:
                setattr(run, name, value)
            elif getattr(run, name) != value and name != "planned_trials":
                _refuse(runner, "conflict", f"{name} of run {report.run_id} can't change")
        run.planned_trials = max(run.planned_trials, report.planned_trials)
        run.save()
    return run


def store_trials(*, runner: Runner, batch: TrialBatch) -> int:
    """Store a batch whole or not at all; the highest number that the run has now."""
    try:
        with transaction.atomic():
            run = (
                Run.objects.select_for_update(of=("self",))
                .select_related("target")
                .filter(run_id=_uuid(batch.run_id), runner=runner)
                .first()
            )
            if run is None:
                raise Contradiction("unknown_run", "report the run before its trials")
            found = run.trials.aggregate(highest=Max("number"))["highest"]
            highest = -1 if found is None else int(found)
            for report in batch.trials:
                highest = _store(run, report, highest)
    except Contradiction as problem:
        _refuse(runner, problem.code, str(problem))
    return highest


def _store(run: Run, report: TrialReport, highest: int) -> int:
    """Store one, where `highest` is the last number that the run has; the last one then."""
    values: dict[str, Any] = cleaned(report.model_dump())
    if report.number <= highest:
        known = run.trials.get(number=report.number)
        different = [name for name, value in values.items() if getattr(known, name) != value]
        if different:
            raise Contradiction(
                "conflict",
                f"trial {report.number} is stored with another {', '.join(sorted(different))}",
            )
        return highest
    if report.number != highest + 1:
        raise Contradiction("gap", f"the next trial is {highest + 1}, not {report.number}")
    if (report.metric is None) != (report.status == "failed"):
        raise Contradiction("invalid", "a trial has no metric exactly if it failed")
    if report.version and _version_digest:
        digest = _version_digest[0](run.target, report.version)
        if digest is None or digest != report.digest:
            raise Contradiction(
                "conflict",
                f"trial {report.number} names version {report.version} with a digest that "
                f"this version of {run.target.name} does not have",
            )
    Trial.objects.create(run=run, **values)
    return report.number


def _refuse(runner: Runner, code: str, message: str) -> None:
    with transaction.atomic():
        log.append(
            actor=Actor(kind=ActorKind.RUNNER, id=str(runner.pk), name=runner.name),
            verb="action.denied",
            subject=f"runner:{runner.name}",
            target=runner.target.name,
            data={"tried": "report", "code": code, "message": message[:1000]},
        )
    raise Contradiction(code, message)


def _uuid(value: str) -> uuid.UUID:
    try:
        return uuid.UUID(value)
    except ValueError as error:
        raise Contradiction("invalid", "run_id is no UUID") from error
