"""From records of repeats to numbers: curves, regret, gains, comparisons. Nothing is run here.

An arm's answer after n trainings is the configuration with the best mean of its trainings so far.
Where the task knows the truth (a recorded surface) the answer is worth the mean of everything that
was recorded there, so that a lucky training is no gain, and no more than the default where most
recorded trainings failed; else it is worth what it was measured, and at the end what it was
measured anew. Lower is better in every loss here, whatever the metric.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.arms import statistics as tests
from runner.arms.runs import Record
from runner.arms.spec import ARMS, REFERENCE, ArmsError, Kind
from runner.interfaces import Task
from runner.loop.noise import Baseline, pooled
from runner.tasks.table import TableTask

CHECKPOINTS = (10, 20, 30)


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """What losses are measured against: the task's direction, and where it is known the optimum
    and the noise of one training (loss scale). `target`: the loss that counts as reached; `host`:
    facts of the machine that trained (a recorded surface: that it was recorded on). `scale`: how
    large the metric of the default configuration is, which says how many digits mean something."""

    sign: float
    default: Mapping[str, Any]
    scale: float
    table: TableTask | None
    optimum: float | None
    sigma: float | None
    noise: str
    target: float | None
    host: Mapping[str, Any]

    @classmethod
    def of(cls, task: Task, target: float | None, records: Iterable[Record]) -> Yardstick:
        """Of a task; `target` in units of its metric (default: one sigma from the optimum).
        `records`: where the noise is pooled from, unless the task knows it."""
        records = list(records)
        sign = 1.0 if task.minimize else -1.0
        table = task if isinstance(task, TableTask) else None
        optimum = sign * table.optimum[0] if table else None
        sigma, noise, host = _of_recorded(table) if table else _of_trained(task, records)
        aim = None if target is None else sign * target
        if aim is None and optimum is not None and sigma is not None:
            aim = optimum + sigma
        return cls(
            sign=sign,
            default=task.space.defaults(),
            scale=_scale(records),
            table=table,
            optimum=optimum,
            sigma=sigma,
            noise=noise,
            target=aim,
            host=host,
        )

    @property
    def more_digits(self) -> int:
        """Decimal places to show beyond those that a metric of about 1 needs."""
        return max(0, -1 - math.floor(math.log10(self.scale))) if self.scale else 0

    def worth(self, config: Mapping[str, Any], measured: Sequence[float]) -> float:
        """The loss of an answer that was measured so."""
        if self.table is not None:
            truth = self.table.truth(config)
            if truth is None:  # most of its recorded trainings failed: a lucky one is no gain
                truth = self.table.truth(self.default)
            if truth is None:
                raise ArmsError(
                    f"most trainings of the default configuration that {self.table.path} recorded "
                    "failed: there is nothing to compare with. Give another --surface"
                )
            return self.sign * truth
        return self.sign * statistics.fmean(measured)


def _scale(records: Sequence[Record]) -> float:
    """The size of the baselines; where that is 0, of anything that was trained."""
    baselines = (abs(m) for r in records for m in r.baseline)
    trained = (abs(t["metric"]) for r in records for t in r.trainings if t["metric"] is not None)
    return max(baselines, default=0.0) or max(trained, default=0.0)


def _of_recorded(table: TableTask) -> tuple[float | None, str, Mapping[str, Any]]:
    """The noise of a recorded surface, what it is from, and the host that recorded it."""
    facts = table.host()
    host = {**facts["recorded_on"], "torch": facts["recorded_torch"], "recorded": True}
    return table.sigma, "of all points that were trained several times", host


def _of_trained(
    task: Task, records: Iterable[Record]
) -> tuple[float | None, str, Mapping[str, Any]]:
    """The noise within the baselines of the repeats, each repeat once: the arms share them."""
    noise = pooled(Baseline(run_id=str(r.repeat), metrics=tuple(r.baseline)) for r in records)
    words = f"within {noise.runs} baselines, {noise.n} trainings in all"
    return noise.sigma, words, task.host()


def curve(record: Record, stick: Yardstick, trials: int) -> list[float]:
    """The loss of the answer after 0 to `trials` trainings; flat where the arm stopped earlier."""
    answer = _key(stick.default)
    seen = {answer: list(record.baseline)}
    losses = [stick.worth(stick.default, record.baseline)]
    for training in record.trainings[:trials]:
        if training["metric"] is not None:
            seen.setdefault(_key(training["config"]), []).append(training["metric"])
            answer = min(seen, key=lambda key: stick.sign * statistics.fmean(seen[key]))
        losses.append(stick.worth(json.loads(answer), seen[answer]))
    return losses + losses[-1:] * (trials + 1 - len(losses))


def _key(config: Mapping[str, Any]) -> str:
    return json.dumps(dict(config), sort_keys=True)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """An arm's repeats as numbers. `final`: the loss at the end, by repeat; `at`: regret (where
    the optimum is known) or loss at each checkpoint; `reached`: trainings to the target, None for
    a repeat that never got there."""

    letter: str
    curves: tuple[tuple[float, ...], ...]
    start: tuple[float, ...]
    final: tuple[float, ...]
    at: Mapping[int, tests.Summary]
    gain: tests.Summary
    reached: tuple[int | None, ...]
    failures: int
    trainings: int


def score_arm(records: Sequence[Record], stick: Yardstick, trials: int) -> Arm:
    """The numbers of one arm."""
    curves = tuple(tuple(curve(record, stick, trials)) for record in records)
    floor = stick.optimum or 0.0
    finals = tuple(_final(r, losses, stick) for r, losses in zip(records, curves, strict=True))
    start = tuple(losses[0] for losses in curves)
    return Arm(
        letter=records[0].arm,
        curves=curves,
        start=start,
        final=finals,
        at={n: tests.summary([c[n] - floor for c in curves]) for n in checkpoints(trials)},
        gain=tests.summary([a - b for a, b in zip(start, finals, strict=True)]),
        reached=tuple(_reached(losses, stick.target) for losses in curves),
        failures=sum(t["metric"] is None for record in records for t in record.trainings),
        trainings=sum(len(record.trainings) for record in records),
    )


def _final(record: Record, losses: Sequence[float], stick: Yardstick) -> float:
    """The loss at the end: measured anew where it was. An answer that mostly failed then is worth
    no more than the default, as on a recorded surface: a lucky training is no gain."""
    good, failed = record.remeasured, record.remeasured_failed
    if not good and not failed:
        return losses[-1]
    if failed >= len(good):
        return losses[0]
    return stick.sign * statistics.fmean(good)


def checkpoints(trials: int) -> tuple[int, ...]:
    """Where losses are told: 10, 20, 30, and the end."""
    return tuple(sorted({n for n in CHECKPOINTS if n < trials} | {trials}))


def _reached(losses: Sequence[float], target: float | None) -> int | None:
    if target is None:
        return None
    return next((n for n, loss in enumerate(losses) if loss <= target), None)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One arm against another at the end; `p` is corrected."""

    arm: str
    other: str
    result: tests.Paired
    p: float | None


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Everything that is told of an ablation."""

    arms: Mapping[str, Arm]
    best_tuner: str
    comparisons: tuple[Comparison, ...]


def score(records: Mapping[str, Sequence[Record]], stick: Yardstick, trials: int) -> Scores:
    """The numbers of all arms, compared with arm A and with the best tuner."""
    arms = {letter: score_arm(rows, stick, trials) for letter, rows in records.items()}
    tuners = [letter for letter in arms if ARMS[letter].kind is Kind.TUNER and letter != "U"]
    best = min(tuners, key=lambda x: (statistics.fmean(arms[x].final), x), default="")
    pairs = [
        (letter, other)
        for other in (REFERENCE, best)
        for letter in arms
        if other in arms and letter != other
    ]
    if (REFERENCE, best) in pairs and (best, REFERENCE) in pairs:
        pairs.remove((REFERENCE, best))  # the same test a second time
    results = {pair: tests.paired(arms[pair[0]].final, arms[pair[1]].final) for pair in pairs}
    named = {f"{a}/{b}": result.p for (a, b), result in results.items()}
    corrected = tests.holm(named)
    return Scores(
        arms=arms,
        best_tuner=best,
        comparisons=tuple(
            Comparison(arm=a, other=b, result=result, p=corrected[f"{a}/{b}"])
            for (a, b), result in results.items()
        ),
    )


def identical(one: Sequence[Record], other: Sequence[Record]) -> int:
    """In how many repeats two arms did exactly the same trainings with the same outcomes."""
    return sum(a.trainings == b.trainings for a, b in zip(one, other, strict=True))


def activation(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Every mechanism that chose trials in an arm: by digest, with counts summed over repeats."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        for used in record.mechanisms:
            row = found.setdefault(
                used["digest"],
                {
                    "digest": used["digest"],
                    "mechanism": used["mechanism"],
                    "repeats": 0,
                    "trials": 0,
                    "hooks": dict.fromkeys(used["hooks"], 0),
                },
            )
            row["repeats"] += 1
            row["trials"] += used["trials"]
            for name, count in used["hooks"].items():
                row["hooks"][name] += count
    return sorted(found.values(), key=lambda row: (-row["trials"], row["digest"]))
