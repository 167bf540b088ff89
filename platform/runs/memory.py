"""What other runs of a task measured, for a runner that begins: bounded, of its own target only.

A token names a runner and so a target: it reads nothing of other targets. Free text (reasons,
messages) stays here, because somebody else's language model wrote it.
"""

from __future__ import annotations

import uuid

from django.db.models import Count

from runner.loop.memory import selected
from runner.protocol import MEMORY_RUNS, MEMORY_TRIALS, Memory, MemoryRun, MemoryTrial
from runs.models import Run, Target, Trial


def of(target: Target, *, task_digest: str, but: str) -> Memory:
    """The newest runs of a task on a target, without the run `but`."""
    runs = Run.objects.filter(target=target, task_digest=task_digest[:64])
    runs = runs.annotate(count=Count("trials")).filter(count__gt=0)
    if own := _uuid(but):
        runs = runs.exclude(run_id=own)
    newest = runs.select_related("runner").order_by("-started_at")[:MEMORY_RUNS]
    return Memory(runs=[_run(run) for run in newest])


def _run(run: Run) -> MemoryRun:
    newest = run.trials.order_by("-number")
    found = [*run.trials.filter(number=0)]
    found += newest.filter(status="kept", number__gt=0)[:MEMORY_TRIALS]
    found += newest.exclude(status="kept")[:MEMORY_TRIALS]
    trials = sorted(found, key=lambda trial: trial.number)
    noise = run.noise or {}
    return MemoryRun(
        run_id=str(run.run_id),
        runner=run.runner.name,
        host_key=noise.get("host_key", ""),
        host=noise.get("host", ""),
        started_at=run.started_at,
        metric=run.metric,
        minimize=run.minimize,
        sigma=run.sigma,
        baseline=trials[0].repeats if trials[0].number == 0 else [],
        trials_in_all=run.trials.count(),
        trials=[_trial(trial) for trial in selected(trials)],
    )


def _trial(trial: Trial) -> MemoryTrial:
    return MemoryTrial.model_validate(
        {
            "number": trial.number,
            "config": trial.config,
            "changes": trial.changes,
            "metric": trial.metric,
            "status": trial.status,
            "failure": trial.failure,
            "seconds": trial.seconds,
            "digest": trial.digest,
            "measurements": max(len(trial.repeats), 1),
        }
    )


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None
