"""What is said of a run and its trials: lines for people, reports for the platform. Only reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

from runner.interfaces import Task
from runner.loop import baseline
from runner.loop.measurements import Measurements, Purpose
from runner.loop.noise import form
from runner.protocol import MeasuringReport, NoiseReport, ResultReport, RunReport, TrialReport
from runner.storage.drafts import Drafts
from runner.storage.journal import Entry, Journal
from sandbox.mechanism import View, space_to_data

RunState = Literal["running", "finished", "stopped", "failed"]
LINE_CHARS = 300


def decided(entry: Entry, view: View, metric: str) -> str:
    """One line about a decided trial; `view` is as before it."""
    if entry.metric is None:
        text = f"failed ({entry.failure}): {entry.message[:LINE_CHARS]}"
    else:
        shape = form(entry.metric)
        text = f"{metric} {entry.metric:{shape}} {entry.status}"
        if entry.repeats:
            text += f" (mean of {len(entry.repeats)} measurements)"
        if view.best.metric is not None:
            text += f" ({entry.metric - view.best.metric:+{shape}} against the best)"
    held = entry.best_metric
    best = "" if held is None else f"; best {held:{form(held)}}"
    return f"trial {entry.number} [{entry.mechanism}]: {text}{best}; {entry.seconds:.1f} s"


def run_report(
    journal: Journal,
    task: Task,
    *,
    prior: str,
    facts: Mapping[str, Any],
    planned: int,
    state: RunState,
    level2: bool = False,
) -> RunReport:
    """How the run stands, as the platform is told. `level2`: whether the run has one."""
    steering, measurements = journal.steering()[1], Measurements(journal)
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
        noise=_noise(measurements),
        result=_result(baseline.result(journal, minimize=task.minimize)),
        measuring=_measuring(measurements),
        frozen=sorted(steering.frozen),
        guidance=steering.guidance[:4000],
        level2=Drafts(journal).level2() if level2 else None,
    )


def _noise(measurements: Measurements) -> NoiseReport | None:
    noise, host = measurements.noise, measurements.host
    if noise is None:
        return None
    where = {"host_key": host.key, "host": host.label[:300]} if host else {}
    return NoiseReport.model_validate({**asdict(noise), **where})


def _result(found: baseline.Result | None) -> ResultReport | None:
    if found is None:
        return None
    gain = found.gain
    return ResultReport(
        trial=found.trial,
        metrics=list(found.metrics),
        failed=found.failed,
        gain=gain.value if gain else None,
        sigmas=gain.sigmas if gain else None,
        low=gain.low if gain else None,
        high=gain.high if gain else None,
    )


def _measuring(measurements: Measurements) -> MeasuringReport:
    rules, memory = measurements.rules, measurements.store.get("memory") or {}
    return MeasuringReport(
        keep_sigma=rules.keep_sigma,
        confirmations=rules.confirmations,
        parallel=rules.parallel,
        baseline=measurements.count(Purpose.BASELINE),
        confirming=measurements.count(Purpose.CONFIRM),
        final=measurements.count(Purpose.FINAL),
        earlier_runs=len(memory.get("runs", ())),
        memory=str(memory.get("told", ""))[:2000],
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
        repeats=list(entry.repeats)[:100],
        finished_at=entry.finished_at,
    )
