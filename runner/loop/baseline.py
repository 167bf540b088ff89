"""Trial 0: the default configuration, trained several times, so that the noise is known; and the
best of a run, trained anew at its end.

Each training is stored before the next starts. The baseline's metric is the mean of its repeats,
never the luckiest of them, and what a run reports of its best is measured after it was chosen.
Not part of the search: no mechanism has a say here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from runner.loop import noise as noises
from runner.loop.measurements import Measurements, Purpose
from runner.loop.noise import Baseline, Gain
from runner.loop.trainings import Trainings
from runner.storage.journal import BASELINE, Entry, Journal, Phase

MAX_FAILED_REPEATS = 2

Say = Callable[[str], None]


class BaselineFailed(RuntimeError):
    """The default configuration can't be trained here: there is nothing to compare with."""


def measure(
    trainings: Trainings, *, repeats: int, earlier: Iterable[Baseline] = (), say: Say
) -> None:
    """Train what is missing of the baseline, and decide trial 0. Does nothing if it is decided.

    `earlier`: baselines of the same task on the same host, to pool the noise with. Raises
    BaselineFailed where more than MAX_FAILED_REPEATS of its trainings failed, and at once where
    the first ones print no metric: they may take minutes each, and the next would print the same.
    """
    journal, task = trainings.journal, trainings.task
    if journal.count():
        return
    config = task.space.defaults()
    wanted = min(repeats, trainings.parallel)
    while True:
        done = trainings.again(
            Purpose.BASELINE,
            BASELINE,
            config,
            wanted=wanted,
            of=max(wanted, repeats),
            what="baseline, repeat",
        )
        good = tuple(o.metric for o in done if o.metric is not None)
        failed = [o for o in done if o.metric is None]
        hopeless = not good and any(o.failure == "no_metric" for o in failed)
        if hopeless or len(failed) > MAX_FAILED_REPEATS:
            raise BaselineFailed(
                f"the default configuration failed {len(failed)} of {len(done)} times, last with "
                f"{failed[-1].failure}: {failed[-1].message[:2000]}\nMend it, then start a run "
                "with another --out"
            )
        if len(good) >= repeats:
            break
        missing = repeats - len(good)
        if not good:  # none more than it takes to give up
            missing = min(missing, MAX_FAILED_REPEATS + 1 - len(failed))
        wanted = len(done) + missing
    mean = noises.mean_of(good)
    entry = Entry(
        number=BASELINE,
        phase=Phase.DECIDED,
        config=config,
        changes={},
        reason=f"baseline: the default configuration, mean of {len(good)} repeats",
        metric=mean,
        seconds=sum(o.seconds for o in done),
        status="kept",
        best_metric=mean,
        repeats=good,
        finished_at=datetime.now(UTC),
    )
    own = Baseline(run_id=journal.run_id, metrics=good)
    noise = noises.pooled([*earlier, own], own=own.run_id)
    journal.set_baseline(entry, noise=asdict(noise))
    sigma = "unknown" if noise.sigma is None else f"{noise.sigma:.4g}"
    others = (
        f"; {noise.left_out} more differ by more than noise: left out" if noise.left_out else ""
    )
    say(
        f"baseline: {task.metric} {mean:{noises.form(mean)}}; noise (sigma) {sigma}, "
        f"of {noise.n} measurements in {noise.runs} run(s) on this host{others}"
    )


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run found: the best trial, measured anew after it was chosen. `trial` 0 with no
    metrics: nothing better than the baseline was kept."""

    trial: int
    metrics: tuple[float, ...] = ()
    failed: int = 0
    gain: Gain | None = field(default=None)

    @property
    def mean(self) -> float | None:
        """Of the measurements anew."""
        return noises.mean_of(self.metrics) if self.metrics else None


def best_of(entries: Iterable[Entry], *, minimize: bool) -> Entry:
    """The best of the kept trials. (Which one a mechanism holds now may be another: an accepted
    step back is no result.)"""
    kept = [e for e in entries if e.status == "kept" and e.metric is not None]
    return (min if minimize else max)(kept, key=lambda e: e.metric or 0.0)


def measure_best(trainings: Trainings, *, repeats: int) -> None:
    """Train the best trial anew, so often as is missing. The baseline was repeated already."""
    best = best_of(trainings.journal.decided(), minimize=trainings.task.minimize)
    if best.number != BASELINE and repeats:
        trainings.again(
            Purpose.FINAL,
            best.number,
            best.config,
            wanted=repeats,
            what=f"the best (trial {best.number}), measured anew,",
        )


def result(journal: Journal, *, minimize: bool) -> Result | None:
    """What the run found, once its best was measured anew."""
    measurements = Measurements(journal)
    noise = measurements.noise
    if noise is None:
        return None
    best = best_of(journal.decided(), minimize=minimize)
    if best.number == BASELINE:
        return Result(trial=BASELINE)
    outcomes = measurements.outcomes(Purpose.FINAL, best.number)
    if not outcomes:
        return None
    good = tuple(o.metric for o in outcomes if o.metric is not None)
    return Result(
        trial=best.number,
        metrics=good,
        failed=len(outcomes) - len(good),
        gain=noises.gain(good, noise, minimize=minimize) if good else None,
    )


def told(found: Result | None, metric: str) -> str:
    """The result in one line for people."""
    if found is None:
        return "the best was not measured anew"
    if found.trial == BASELINE:
        return "no trial was better than the baseline by the run's rule"
    if found.gain is None:
        return (
            f"the best, trial {found.trial}, failed all {found.failed} times it was measured anew"
        )
    mean = noises.mean_of(found.metrics)
    number = f"{mean:{noises.form(mean)}}"
    return f"the best, trial {found.trial}, measured anew: {metric} {number}, {found.gain}"
