"""How a run and its trials are told: lines for people, reports for the platform. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from runner.borders import Task
from runner.journal import Entry, Journal
from runner.protocol import RunReport, TrialReport
from sandbox.mechanism import View, space_to_data

RunState = Literal["running", "finished", "stopped", "failed"]
LINE_CHARS = 300


def decided(entry: Entry, view: View, metric: str) -> str:
    """One line about a decided trial; `view` is as before it."""
    if entry.metric is None:
        text = f"failed ({entry.failure}): {entry.message[:LINE_CHARS]}"
    else:
        text = f"{metric} {entry.metric:.4f} {entry.status}"
        if view.best.metric is not None:
            text += f" ({entry.metric - view.best.metric:+.4f} against the best)"
    best = "" if entry.best_metric is None else f"; best {entry.best_metric:.4f}"
    return f"trial {entry.number} [{entry.mechanism}]: {text}{best}; {entry.seconds:.1f} s"


def run_report(
    journal: Journal,
    task: Task,
    *,
    prior: str,
    facts: Mapping[str, Any],
    planned: int,
    state: RunState,
) -> RunReport:
    """How the run stands, as the platform is told."""
    steering = journal.steering()[1]
    return RunReport(
        run_id=journal.run_id,
        task=task.name,
        task_digest=task.digest,
        description=task.description[:2000],
        metric=task.metric,
        minimize=task.minimize,
        space=space_to_data(task.space),
        host={**facts, "prior": prior, "seed": journal.seed},
        prior=prior[:200],
        seed=journal.seed,
        planned_trials=max(planned, 1),
        started_at=journal.started_at,
        state=state,
        sigma=journal.sigma,
        frozen=sorted(steering.frozen),
        guidance=steering.guidance[:4000],
    )


def trial_report(entry: Entry) -> TrialReport:
    """A decided trial, as the platform is told. Raises ValueError if it is not decided."""
    if entry.status is None or entry.finished_at is None:
        raise ValueError(f"trial {entry.number} is not decided")
    return TrialReport(
        number=entry.number,
        config=dict(entry.config),
        changes=dict(entry.changes),
        reason=entry.reason[:2000],
        metric=entry.metric,
        status=entry.status,
        failure=entry.failure[:60],
        message=entry.message[-4000:],
        seconds=entry.seconds,
        best_metric=entry.best_metric,
        mechanism=entry.mechanism,
        digest=entry.digest,
        version=entry.version,
        hooks=entry.hooks,
        repeats=list(entry.repeats)[:20],
        finished_at=entry.finished_at,
    )
