"""Parallel batch: as many candidates as there are free workers, good ones that keep their distance.

A random forest over all trials (failures as the worst result) says what is likely good, and where
its trees disagree nobody knows. Candidates are drawn around the best configuration, within a
radius that grows when trials were kept and shrinks when none was. The next of a batch is chosen
for its value minus what the ones chosen before already say about its neighbourhood.
"""

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor

from sandbox.mechanism import Candidate, Config, KnobValue, Mechanism, View

RADIUS = 0.3  # of the region around the best one at first, as a share of each knob's range
SHRINK = 0.85  # what a trial that was not kept leaves of the radius; a kept one takes it back
LEAST_RADIUS = 0.05  # smallest radius
DARING = 1.0  # worth of the trees' disagreement
DISTANCE = 1.0  # worth of being away from the others of the batch
POOL = 200  # points that are compared
TREES = 40  # trees of the forest
STARTUP = 5  # trials before the forest is asked
HUGE = 1e100  # beyond it, or below one by it, results are scaled: their squares have no value


class Batch(Mechanism):
    """Spreads a batch over a region of trust."""

    name = "batch"

    def propose(self, view: View, count: int) -> list[Candidate]:
        """The best of the pool, one after the other."""
        if not view.movable():
            return []
        rng = np.random.default_rng(view.random.randrange(2**31))
        size = radius(view)
        pool = drawn(view, rng, size)
        if not pool:
            return []
        points = np.array([view.places(config) for config in pool])
        worth = rated(view, points, rng)
        chosen: list[Candidate] = []
        for _ in range(min(count, len(pool))):
            best = int(np.argmax(worth))
            said = f"batch: within {size:.2f} of the best one, away from the others"
            chosen.append(Candidate(changes=view.changes_to(pool[best]), reason=said))
            apart = np.abs(points - points[best]).max(axis=1)
            worth = worth - DISTANCE * np.exp(-((apart / size) ** 2))
            worth[best] = -np.inf
        return chosen


def radius(view: View) -> float:
    """Grows with every trial that was kept, shrinks with the others."""
    size = RADIUS
    for trial in view.trace[1:]:
        size = size / SHRINK**2 if trial.status == "kept" else size * SHRINK ** (1 / 2)
        size = min(max(size, LEAST_RADIUS), 2 * RADIUS)
    return size


def drawn(view: View, rng: np.random.Generator, size: float) -> list[dict[str, KnobValue]]:
    """New valid configurations around the best one; farther away where there are too few."""
    centre = np.array(view.places(view.best.config))
    found: dict[str, dict[str, KnobValue]] = {}
    for width in (size, 2 * size, 1.0):
        share = 1.0 if width == 1.0 else max(0.35, 1.5 / len(centre))
        moved = rng.random((POOL, len(centre))) < share
        steps = rng.uniform(-width, width, moved.shape) * moved
        for point in np.clip(centre + steps, 0.0, 1.0):
            config = view.placed(float(place) for place in point)
            if view.fresh(config):
                found.setdefault(key(config), config)
        if len(found) >= POOL // 4:
            break
    return list(found.values()) or single_steps(view)


def single_steps(view: View) -> list[dict[str, KnobValue]]:
    """All new configurations that differ from the best one in one knob."""
    found = []
    for name in view.movable():
        for value in view.space[name].near(view.best.config[name])[1:]:
            config = view.space.repaired(view.config_of({name: value}), fixed={name, *view.frozen})
            if view.fresh(config):
                found.append(config)
    return found


def key(config: Config) -> str:
    """A configuration as text, to compare it with others."""
    return repr(sorted(config.items()))


def rated(view: View, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What is expected of points, higher is better, in standard deviations of the results."""
    known = view.known()
    sign = 1.0 if view.minimize else -1.0
    good = [sign * t.metric for t in known if t.metric is not None]
    values = np.array([max(good) if t.metric is None else sign * t.metric for t in known if good])
    largest = float(np.abs(values).max(initial=0.0))
    if largest and not 1 / HUGE <= largest <= HUGE:
        values = values / largest
    if len(values) <= STARTUP or not values.std():
        return rng.random(len(points))
    forest = ExtraTreesRegressor(
        n_estimators=TREES, min_samples_leaf=2, random_state=int(rng.integers(2**31))
    )
    forest.fit(np.array([view.places(t.config) for t in known]), values)
    answers = np.array([tree.predict(points) for tree in forest.estimators_]) / values.std()
    return DARING * answers.std(axis=0) - answers.mean(axis=0)
