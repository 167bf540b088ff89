"""One repeat of one arm: runs it to the end of its budget, and writes down what happened.

A finished repeat is one JSON file and is never run again; an unfinished one goes on from its
journal (search loop) or is told again what it was told (tuner), with every training that it had.
What is compared afterwards comes from these files alone (`score`), and they hold no times.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from runner.arms.budget import Book, Budgeted, Spent, Training
from runner.arms.control import Governed, LevelTwoNow, Signer
from runner.arms.forgetful import ForgetfulPrior
from runner.arms.gate import Gate, placebo_files
from runner.arms.record_schema import check_record
from runner.arms.spec import Arm, ArmsError, Kind, Mechanisms
from runner.arms.tuners import tuner_for
from runner.control.local import Local
from runner.interfaces import Prior, Researcher, Task
from runner.levels.level2 import Base
from runner.loop.baseline import MAX_FAILED_REPEATS, BaselineFailed
from runner.loop.measurements import Measurements, Purpose
from runner.loop.search import Plan, Search, Steer
from runner.loop.trainings import sane
from runner.protocol import HookCounts
from runner.storage.journal import BASELINE, Journal, Phase, derive
from runner.storage.store import JournalError
from sandbox.backends.base import Backend
from sandbox.files import put

BASELINE_REPEATS = 3
Parts = Callable[[], tuple[Prior, Steer, Researcher | None]]
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What all arms share. `parts` makes prior, Level 1.5 and Level 2, anew for each repeat."""

    task: Task
    out: Path
    trials: int
    seed: int
    level2_every: int
    level2_first: bool
    remeasure: int
    keep_sigma: float
    confirmations: int
    parts: Parts
    base: Base
    gate: Gate
    signer: Signer
    backend: Callable[[], Backend]
    say: Say


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one repeat did. `baseline`: metrics of the default configuration, shared by the arms of
    a repeat; `trainings`: in their order; `mechanisms`: what chose trials, by digest, with counts
    from the host side; `remeasured`: the found configuration, trained anew with fresh
    seeds, and how many of those trainings failed."""

    arm: str
    repeat: int
    seed: int
    prior: str
    level2: str
    baseline: list[float]
    trainings: list[dict[str, Any]]
    trials: int
    mechanisms: list[dict[str, Any]]
    events: list[dict[str, Any]]
    remeasured: list[float] = field(default_factory=list)
    remeasured_failed: int = 0


def path_of(out: Path, arm: Arm, repeat: int) -> Path:
    """Where a finished repeat is written."""
    return out / "runs" / arm.letter / f"{repeat:03d}.json"


def read_record(shop: Workshop, arm: Arm, repeat: int) -> Record:
    """A finished repeat. Raises ArmsError where the file is broken, or another repeat's."""
    path = path_of(shop.out, arm, repeat)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        check_record(
            data,
            arm=arm.letter,
            repeat=repeat,
            seed=derive(shop.seed, repeat, "arms"),
            trainings=shop.trials,
            knobs=shop.task.space.defaults(),
        )
    except (OSError, ValueError, RecursionError) as error:
        raise ArmsError(f"{path} is broken ({error}): remove it to run it again") from None
    return Record(**data)


def run_arm(shop: Workshop, arm: Arm, repeat: int) -> Record:
    """Run what is missing of a repeat, and write its record."""
    path = path_of(shop.out, arm, repeat)
    if path.exists():
        return read_record(shop, arm, repeat)
    folder = path.with_suffix("")
    seed = derive(shop.seed, repeat, "arms")
    task = Budgeted(
        shop.task,
        trainings=shop.trials,
        book=Book(folder / "trainings.jsonl", remove=folder),
        baseline=Book(shop.out / "runs" / "baseline" / f"{repeat:03d}.jsonl"),
        baseline_seeds=_baseline_seeds(seed),
    )
    if arm.kind is Kind.LOOP:
        about = _loop(shop, arm, seed, task, folder)
    else:
        about = _tuner(shop, arm, seed, task, folder)
    good, failed = _remeasured(shop, seed, task, folder)
    record = Record(
        arm=arm.letter,
        repeat=repeat,
        seed=seed,
        baseline=_baseline(task, seed),
        trainings=[_shown(t) for t in task.book.trainings],
        remeasured=good,
        remeasured_failed=failed,
        **about,
    )
    _write(path, record)
    return record


def _baseline_seeds(seed: int) -> list[int]:
    """Of the repeats of the baseline, those in place of failed ones included; as the loop's."""
    most = BASELINE_REPEATS + MAX_FAILED_REPEATS
    return [derive(seed, BASELINE, f"repeat/{number}") for number in range(most)]


def _baseline(task: Budgeted, seed: int) -> list[float]:
    """The metrics of the baseline, trained where they are missing: the same for every arm of a
    repeat. Raises BaselineFailed where the default configuration can't be trained."""
    good: list[float] = []
    why = ""
    for one in _baseline_seeds(seed):
        if len(good) < BASELINE_REPEATS:
            outcome = task.run(task.space.defaults(), seed=one)
            if outcome.metric is None:
                why = f"{outcome.failure}: {outcome.message}"
            good += [] if outcome.metric is None else [outcome.metric]
    if len(good) < BASELINE_REPEATS:
        raise BaselineFailed(
            f"the default configuration failed more than {MAX_FAILED_REPEATS} times, last with "
            f"{why}\nThere is nothing to compare with: choose another task or other options"
        )
    return good


def _shown(training: Training) -> dict[str, Any]:
    return {
        "config": dict(training.config),
        "metric": training.metric,
        "failure": training.failure,
    }


def _write(path: Path, record: Record) -> None:
    text = json.dumps(asdict(record), sort_keys=True, indent=1, allow_nan=False)
    put(path, f"{text}\n".encode(), mode=0o644)


# --- arms with a search loop ----------------------------------------------------------------------


def _loop(shop: Workshop, arm: Arm, seed: int, task: Budgeted, folder: Path) -> dict[str, Any]:
    prior, steer, researcher = shop.parts()
    if arm.restart_every:
        prior = ForgetfulPrior(prior, every=arm.restart_every)
    with closing(_journal(folder, task, seed)) as journal:
        control, level2 = _control(shop, arm, journal, task, researcher)
        search = Search(
            journal=journal,
            task=task,
            prior=prior,
            control=control,
            plan=Plan(
                trials=shop.trials,
                baseline_repeats=BASELINE_REPEATS,
                final_repeats=0,
                keep_sigma=shop.keep_sigma,
                confirmations=shop.confirmations,
            ),
            say=lambda _text: None,
            steer=steer if arm.steered else None,
        )
        try:
            search.run()
        except Spent:
            pass
        finally:
            if isinstance(control, Governed):
                control.close()
        return {
            "prior": prior.label,
            "level2": level2,
            "trials": journal.count() - 1,
            "mechanisms": _mechanisms(journal),
            "events": control.events if isinstance(control, Governed) else [],
        }


def _journal(folder: Path, task: Budgeted, seed: int) -> Journal:
    """The journal of a repeat. Raises ArmsError where it is broken, or lacks what the book has."""
    journal = None
    try:
        journal = Journal(folder)
        journal.identify(task=task.name, task_digest=task.digest, seed=seed)
        trained = [e for e in journal.decided() if e.number != BASELINE]
        trained += [e for e in journal.pending() if e.phase is Phase.MEASURED]
        lost = [
            e.number
            for e in trained
            if task.book.find(e.config, derive(seed, e.number, "train")) is None
        ]
        confirmed = Measurements(journal).count(Purpose.CONFIRM)
        if lost or len(task.book.trainings) < len(trained) + confirmed:
            raise JournalError(f"{task.book.path} lacks trainings that its journal has: {lost[:5]}")
    except JournalError as error:
        if journal is not None:
            journal.close()
        raise ArmsError(
            f"{error}. Remove {folder} alone, and the same command runs that repeat anew"
        ) from None
    return journal


def _control(
    shop: Workshop, arm: Arm, journal: Journal, task: Task, researcher: Researcher | None
) -> tuple[Governed | Local, str]:
    """The arm's control and the label of its Level 2."""
    if arm.mechanisms is Mechanisms.NONE:
        return Local(journal), ""
    level2 = None
    if arm.mechanisms is Mechanisms.LEVEL2:
        if researcher is None:
            raise ArmsError(f"arm {arm.letter} needs Level 2: give --level2-every 1 or more")
        level2 = LevelTwoNow(
            journal=journal,
            task=task,
            researcher=researcher,
            base=lambda: shop.base,
            every=shop.level2_every,
            say=lambda text: _tell_trouble(shop, text),
            news=lambda: None,
        )
        level2.first = shop.level2_first
    control = Governed(
        journal=journal,
        gate=shop.gate,
        signer=shop.signer,
        backend=shop.backend,
        say=shop.say,
        level2=level2,
        first=placebo_files() if arm.mechanisms is Mechanisms.PLACEBO else None,
    )
    return control, researcher.label if level2 is not None and researcher is not None else ""


def _tell_trouble(shop: Workshop, text: str) -> None:
    """Of what Level 2 says, where it came to nothing: the rest is in the events."""
    if text.startswith("LEVEL 2"):
        shop.say(text)


def _mechanisms(journal: Journal) -> list[dict[str, Any]]:
    """Every mechanism that chose a trial, in order, with its trials and the sum of its counts."""
    found: dict[str, dict[str, Any]] = {}
    for entry in journal.decided():
        if entry.number == BASELINE:
            continue
        row = found.setdefault(
            entry.digest,
            {
                "digest": entry.digest,
                "mechanism": entry.mechanism,
                "first_trial": entry.number,
                "trials": 0,
                "hooks": dict.fromkeys(HookCounts.model_fields, 0),
            },
        )
        row["trials"] += 1
        for name, count in entry.hooks.model_dump().items():
            row["hooks"][name] += count
    return list(found.values())


# --- arms with a tuner ----------------------------------------------------------------------------


def _tuner(shop: Workshop, arm: Arm, seed: int, task: Budgeted, folder: Path) -> dict[str, Any]:
    sign = 1.0 if task.minimize else -1.0
    tuner = tuner_for(arm.letter, task.space, derive(seed, 0, "tuner"))
    baseline = _baseline(task, seed)
    tuner.tell(task.space.defaults(), sign * sum(baseline) / len(baseline))
    for number in range(1, shop.trials + 1):
        config = tuner.ask()
        try:
            outcome = task.run(config, seed=derive(seed, number, "train"))
        except Spent:
            raise ArmsError(
                f"{task.book.path} holds trainings that arm {arm.letter} does not ask for now (it "
                f"was changed, or the tuner's library is another version): remove {folder}, and "
                "the same command runs that repeat anew"
            ) from None
        tuner.tell(config, None if outcome.metric is None else sign * outcome.metric)
    return {"prior": "", "level2": "", "trials": shop.trials, "mechanisms": [], "events": []}


# --- the end --------------------------------------------------------------------------------------


def best_config(
    baseline: list[float], trainings: list[dict[str, Any]], default: Mapping[str, Any], sign: float
) -> dict[str, Any]:
    """The configuration with the best mean of its trainings; the earlier one of equal ones."""
    seen: dict[str, list[float]] = {json.dumps(dict(default), sort_keys=True): list(baseline)}
    for training in trainings:
        if training["metric"] is not None:
            key = json.dumps(training["config"], sort_keys=True)
            seen.setdefault(key, []).append(training["metric"])
    best = min(seen, key=lambda key: sign * sum(seen[key]) / len(seen[key]))
    return dict(json.loads(best))


def _remeasured(shop: Workshop, seed: int, task: Budgeted, folder: Path) -> tuple[list[float], int]:
    """The found configuration, trained anew, and how many of these trainings failed: what is
    reported is never the luckiest training."""
    if not shop.remeasure:
        return [], 0
    baseline = _baseline(task, seed)
    trainings = [_shown(t) for t in task.book.trainings]
    sign = 1.0 if task.minimize else -1.0
    config = best_config(baseline, trainings, task.space.defaults(), sign)
    book = Book(folder / "remeasured.jsonl", remove=folder)
    for number in range(shop.remeasure):
        fresh = derive(seed, number, "remeasure")
        if book.find(config, fresh) is None:
            book.add(Training.of(config, fresh, sane(shop.task.run(config, seed=fresh))))
    good = [t.metric for t in book.trainings if t.metric is not None]
    return good, len(book.trainings) - len(good)
