"""A whole search in one process on an analytic surface: what the operators' claims are tested on.

The space is the gpt task's; the surface has its best batch far below the default, as the real one.
"""

from __future__ import annotations

import importlib.util
import math
import random
from pathlib import Path

from runner.gpt.space import SPACE
from runner.levels.strategy import HabitPrior
from sandbox.mechanism import Config, Mechanism, Trial, View

SEED_FOLDER = Path(__file__).resolve().parents[2] / "mechanisms_repo"
OPTIMUM = {
    "TOTAL_BATCH_SIZE": (2**8, 1.5),
    "MATRIX_LR": (0.05, 1.0),
    "EMBEDDING_LR": (0.6, 0.5),
    "UNEMBEDDING_LR": (0.02, 0.8),
    "WARMDOWN_RATIO": (0.3, 0.3),
    "WEIGHT_DECAY": (0.05, 0.2),
}


def operator(name: str) -> Mechanism:
    """The seed operator of that name, from its file."""
    path = SEED_FOLDER / "mechanisms" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"simulated_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (cls,) = (
        v
        for v in vars(module).values()
        if isinstance(v, type) and issubclass(v, Mechanism) and v is not Mechanism
    )
    instance: Mechanism = cls()
    return instance


def surface(config: Config) -> float:
    """A bowl on the knobs' own scales."""
    total = 3.0
    for name, (best, weight) in OPTIMUM.items():
        knob = SPACE[name]
        distance = knob.position(config[name]) - knob.position(best)
        total += weight * math.sqrt(abs(distance)) * abs(distance) * 8
    return total


def search(mechanism: Mechanism, *, trials: int, seed: int, prior=None) -> list[Trial]:
    """Trials in order, the baseline first; invalid candidates are failed trials."""
    config = SPACE.defaults()
    trace = [_trial(0, config, {}, surface(config), "kept")]
    best, asker = trace[0], prior or HabitPrior()
    for number in range(1, trials + 1):
        rng = random.Random(f"{seed}/{number}")

        def ask(guidance: str, count: int, best=best, rng=rng):
            return asker.ask(
                View(trace=tuple(trace), best=best, space=SPACE, random=rng), guidance, count
            )

        view = View(trace=tuple(trace), best=best, space=SPACE, random=rng, prior=ask)
        (candidate,) = mechanism.propose(view, 1)
        config = view.config_of(candidate.changes)
        if SPACE.problems(config):
            trial = _trial(number, config, candidate.changes, None, "failed")
        else:
            trial = _trial(number, config, candidate.changes, surface(config), "discarded")
            if mechanism.accept(trial, view):
                trial = _trial(number, config, candidate.changes, trial.metric, "kept")
                best = trial
        trace.append(trial)
    return trace


def _trial(number, config, changes, metric, status) -> Trial:
    failure = "constraint" if status == "failed" else ""
    return Trial(
        number=number, config=config, changes=changes, metric=metric, status=status, failure=failure
    )


def best_of(trace: list[Trial]) -> float:
    """The best metric."""
    return min(t.metric for t in trace if t.metric is not None)


def repeats(trace: list[Trial]) -> int:
    """Trials of a configuration that was tried before."""
    return len(trace) - len({repr(sorted(t.config.items())) for t in trace})
