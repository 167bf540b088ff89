"""Trial 0: the default configuration, trained several times, so that the noise is known.

Each repeat is stored before the next starts. The baseline's metric is the mean of its repeats,
never the luckiest of them. Not part of the search: no mechanism has a say here.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from datetime import UTC, datetime

from runner.borders import Outcome, Task
from runner.journal import BASELINE, Entry, Journal, Phase, derive

MAX_FAILED_REPEATS = 2

Say = Callable[[str], None]


class BaselineFailed(RuntimeError):
    """The default configuration can't be trained here: there is nothing to compare with."""


def measure(
    journal: Journal, task: Task, *, repeats: int, say: Say, activity: Say, news: Callable[[], None]
) -> None:
    """Train what is missing of the baseline, and decide trial 0. Does nothing if it is decided.

    Raises BaselineFailed where more than MAX_FAILED_REPEATS of its trainings failed.
    """
    if journal.count():
        return
    config = task.space.defaults()
    while True:
        done = journal.repeats()
        good = [o.metric for o in done if o.metric is not None]
        failed = [o for o in done if o.metric is None]
        if len(failed) > MAX_FAILED_REPEATS:
            raise BaselineFailed(
                f"the default configuration failed {len(failed)} of {len(done)} times, last with "
                f"{failed[-1].failure}: {failed[-1].message[-1000:]}"
            )
        if len(good) >= repeats:
            break
        number = len(done)
        what = f"baseline, repeat {len(good) + 1} of {repeats}"
        activity(f"training the {what}")
        say(f"{what}: training")
        outcome = task.run(config, seed=derive(journal.seed, BASELINE, f"repeat/{number}"))
        journal.add_repeat(number, outcome)
        say(f"{what}: {_told(task, outcome)}")
        news()
    sigma = statistics.stdev(good) if len(good) > 1 else None
    mean = statistics.fmean(good)
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
        repeats=tuple(good),
        finished_at=datetime.now(UTC),
    )
    journal.set_baseline(entry, sigma=sigma)
    noise = "unknown" if sigma is None else f"{sigma:.4g}"
    say(f"baseline: {task.metric} {mean:.4f}, noise (sigma of {len(good)}) {noise}")


def _told(task: Task, outcome: Outcome) -> str:
    if outcome.metric is None:
        return f"failed ({outcome.failure}): {outcome.message[-300:]}"
    return f"{task.metric} {outcome.metric:.4f} in {outcome.seconds:.1f} s"
