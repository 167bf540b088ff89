"""How well each seed operator searches a recorded surface, beside tuners: simple regret.

    python benchmarks/operators.py SURFACE.json.gz [--repeats 20] [--only pathfinder,T]

In one process, without a gate and without a language model (the scripted prior); `runner arms` is
the whole comparison with equal budgets. The answer after n trials is what `best` is then (for a
tuner the best measured one), worth the mean of all that was recorded there.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from runner.arms.tuners import tuner_for  # noqa: E402 - after the path
from runner.tasks import get_task  # noqa: E402
from sandbox.mechanism import Mechanism, Trial, View  # noqa: E402
from sandbox.scripted_prior import ScriptedPrior  # noqa: E402
from scripts.chaos_loop_judge import LIBRARY, library  # noqa: E402

POINTS = (10, 20, 30)
BASELINE = 3  # trainings of the start
TUNERS = {"U": "random", "T": "TPE", "G": "Gaussian process", "E": "CMA-ES"}


def search(task: Any, kind: type[Mechanism], seed: int) -> list[float]:
    """Regret of an operator after each of POINTS trials."""
    mechanism, config = kind(), task.space.defaults()
    start = [task.run(config, seed=seed * 1000 + 900 + i).metric for i in range(BASELINE)]
    trace = [
        Trial(
            number=0,
            config=config,
            changes={},
            metric=statistics.fmean(start),
            status="kept",
            measurements=BASELINE,
        )
    ]
    best, found = trace[0], []
    for number in range(1, POINTS[-1] + 1):

        def view(number: int = number, best: Trial = best) -> View:
            bare = View(
                trace=tuple(trace),
                best=best,
                space=task.space,
                random=random.Random(f"{seed}/{number}"),  # noqa: S311 - search, not secrets
                minimize=task.minimize,
                noise=statistics.stdev(start),
            )
            return replace(bare, prior=ScriptedPrior(bare, seed=f"{seed}/{number}"))

        for candidate in mechanism.propose(view(), 1)[:1]:
            config = view().config_of(candidate.changes)
            wrong = task.space.problems(config)
            metric = None if wrong else task.run(config, seed=seed * 1000 + number).metric
            trial = Trial(
                number=number,
                config=config,
                changes=candidate.changes,
                metric=metric,
                status="failed" if metric is None else "discarded",
                failure="constraint" if wrong else "",
            )
            if metric is not None and mechanism.accept(trial, view()):
                best = trial = replace(trial, status="kept")
            trace.append(trial)
        if number in POINTS:
            found.append(abs(task.truth(best.config) - task.optimum[0]))
    return found


def tuned(task: Any, letter: str, seed: int) -> list[float]:
    """Regret of a tuner after each of POINTS trials."""
    tuner, config = tuner_for(letter, task.space, seed), task.space.defaults()
    sign = 1.0 if task.minimize else -1.0
    best = (sign * task.run(config, seed=seed).metric, config)
    tuner.tell(config, best[0])
    found = []
    for number in range(1, POINTS[-1] + 1):
        config = tuner.ask()
        metric = task.run(config, seed=seed * 1000 + number).metric
        tuner.tell(config, None if metric is None else sign * metric)
        if metric is not None and sign * metric < best[0]:
            best = (sign * metric, config)
        if number in POINTS:
            found.append(abs(task.truth(best[1]) - task.optimum[0]))
    return found


def main() -> None:
    """Print a line for each searcher: mean regret and its standard error at 10, 20, 30 trials."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("surface", help="a file that `python -m runner record` wrote")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--only", default="", help="names and letters, with commas")
    given = parser.parse_args()
    task = get_task("table", {"surface": given.surface})
    names = sorted(path.stem for path in LIBRARY.glob("*.py"))
    for name in given.only.split(",") if given.only else [*names, *TUNERS]:
        one: Callable[[Any, Any, int], list[float]] = tuned if name in TUNERS else search
        what: Any = name if name in TUNERS else next(iter(library([name]).values()))
        rows = list(zip(*(one(task, what, seed) for seed in range(given.repeats)), strict=True))
        errors = [statistics.stdev(row) / len(row) ** 0.5 for row in rows]
        told = [
            f"{statistics.fmean(row):.4f} +- {error:.4f}"
            for row, error in zip(rows, errors, strict=True)
        ]
        sys.stdout.write(f"{TUNERS.get(name, name):18}{'  '.join(told)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
