"""CMA-ES with a share of the prior: an evolution strategy that learns which knobs move together.

Generations are drawn around a mean with a covariance that follows what paid (Hansen's CMA-ES, by
the package cmaes). PRIOR_SHARE of the trials are the prior's, in print the best was 10 to 30 per
cent; the strategy is told of them as of its own. It is rebuilt from the trace each time: the
generations are the trials in order, so nothing has to be remembered.
"""

import math

import numpy as np
from cmaes import CMA

from sandbox.mechanism import Candidate, Config, Mechanism, Trial, View

PRIOR_SHARE = 0.2  # share of the trials that the prior chooses
SIGMA = 0.18  # first step, as a share of each knob's range
POPULATION = 6  # trials of a generation
ATTEMPTS = 20  # draws that may be stale or invalid


class Evolution(Mechanism):
    """CMA-ES over the positions of the knobs."""

    name = "cma"

    def propose(self, view: View, count: int) -> list[Candidate]:
        """Draws of the running generation, and in its share what the prior says."""
        if not view.movable():
            return []
        strategy = evolved(view) if len(view.movable()) > 1 else None
        taken: list[Config] = []
        chosen: list[Candidate] = []
        for _ in range(count):
            candidate = self.from_prior(view, taken) or drawn(view, strategy, taken)
            if candidate is not None:
                taken.append(view.config_of(candidate.changes))
                chosen.append(candidate)
        return chosen

    def from_prior(self, view: View, taken: list[Config]) -> Candidate | None:
        """The prior's candidate in its share, if it is free, valid and new."""
        if view.random.random() >= PRIOR_SHARE:
            return None
        for answer in view.ask("", 1):
            config = view.config_of(answer.changes)
            frozen = any(name in view.frozen for name in answer.changes)
            if not frozen and view.fresh(config) and config not in taken:
                return answer
        return None


def cost(trial: Trial, view: View) -> float:
    """The metric, lower is better; a failure is worse than everything."""
    if trial.metric is None:
        return math.inf
    return trial.metric if view.minimize else -trial.metric


def evolved(view: View) -> CMA:
    """The strategy after all whole generations of the trace."""
    known = view.known()
    start = np.array(view.places(known[0].config if known else view.best.config))
    size = max(POPULATION, 2)
    strategy = CMA(
        mean=np.clip(start, 0.02, 0.98),
        sigma=SIGMA,
        bounds=np.tile([0.0, 1.0], (len(start), 1)),
        seed=view.random.randrange(2**31),
        population_size=size,
    )
    worst = max((cost(t, view) for t in known if t.metric is not None), default=0.0)
    trials = known[1:]
    for first in range(0, len(trials) - size + 1, size):
        told = [
            (np.array(view.places(t.config)), min(cost(t, view), worst + 1.0))
            for t in trials[first : first + size]
        ]
        strategy.tell(told)
    return strategy


def drawn(view: View, strategy: CMA | None, taken: list[Config]) -> Candidate | None:
    """A fresh draw, else one knob of the best configuration moved."""
    for _ in range(ATTEMPTS if strategy else 0):
        config = view.placed(float(p) for p in np.clip(strategy.ask(), 0.0, 1.0))
        if view.fresh(config) and config not in taken:
            said = f"cma: generation {strategy.generation + 1}"
            return Candidate(changes=view.changes_to(config), reason=said)
    return single_step(view, taken)


def single_step(view: View, taken: list[Config]) -> Candidate | None:
    """A fresh configuration with one knob moved as little as possible, else any other."""
    names = view.movable()
    view.random.shuffle(names)
    for name in names:
        for value in view.space[name].near(view.best.config[name])[1:]:
            config = view.space.repaired(view.config_of({name: value}), fixed={name, *view.frozen})
            if view.fresh(config) and config not in taken:
                return Candidate(changes=view.changes_to(config), reason=f"cma: {name} alone")
    for _ in range(10 * ATTEMPTS):
        config = view.placed(view.random.random() for _ in names)
        if view.fresh(config) and config not in taken:
            return Candidate(changes=view.changes_to(config), reason="cma: somewhere new")
    return None
