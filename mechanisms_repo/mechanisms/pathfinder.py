"""Pathfinder: line search on the powers of two, then a model of the whole trace in a trust region.

A batch that is far too large hides what every other knob does. So powers of two with a long scale
are walked first, in strides that double while that pays. Then a Gaussian process with a curve for
each knob and one term for what they do together (few trials can tell that much about many knobs)
is fitted to the whole trace, and what it expects most of, within reach of the best configurations,
is tried.
"""

import math
from dataclasses import replace

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import ndtr

from sandbox.mechanism import Candidate, Config, Mechanism, Trial, View

STRIDE = 2  # doublings of the first step on a power of two
STRIDES = 5  # steps of one walk at most
RADIUS = 0.35  # how far a knob goes from a good configuration, as a share of its range
KNOBS = 8  # knobs of a good configuration that a drawn candidate moves at most
GOOD = 3  # configurations that candidates start from: the best ones by the model
POOL = 500  # candidates that are drawn
CLIMBS = 6  # times that the best candidate so far is varied, one knob at a time
LENGTH = 0.3  # distance over which a knob's effect turns, as a share of its range
CURVE = 0.5  # usual strength of one knob, in standard deviations of the results
JOINT = 0.2  # usual strength of what the knobs do together
NOISE = 0.03  # usual noise beside the measured one, which a few repeats tell badly
SQUEEZE = 2.0  # how much bad results are drawn together: they need no fine model
MOVES = (-1.0, -0.7, -0.4, -0.2, -0.1, 0.1, 0.2, 0.4, 0.7, 1.0)  # of a climb, in radii
LEAST_STEPS = 8  # a power of two with fewer steps from end to end is left to the model
MOST = 60  # trials that the model is fitted to: the best ones and the latest ones
TINY = 1e-6
HUGE = 1e100  # beyond it, or below one by it, results are scaled: their squares have no value


class Pathfinder(Mechanism):
    """Line search, then expected improvement of an additive model."""

    name = "pathfinder"

    def propose(self, view: View, count: int) -> list[Candidate]:
        """The next stride of a walk, else what the model expects most of."""
        chosen = [candidate for candidate in [stride(view)] if candidate is not None]
        while view.movable() and len(chosen) < count:
            candidate = expected_best(view, [view.config_of(c.changes) for c in chosen])
            if candidate is None:
                break
            chosen.append(candidate)
        return chosen

    def accept(self, trial: Trial, view: View) -> bool:
        """Better than the best one as measured, and by the model of all trials."""
        gain = view.gain(trial)
        if gain is None:
            return trial.metric is not None
        if gain <= 0 or view.space.problems(trial.config):
            return False
        if not view.movable():  # all is frozen since it was proposed: nothing to model
            return gain > view.margin(trial)
        return gain > view.margin(trial) > 0 or modelled_gain(trial, view) > 0


# --- the walk over powers of two ---


def stride(view: View) -> Candidate | None:
    """The next step on a power of two whose walk has not ended."""
    partners = {rule.of for rule in view.space.constraints}
    for name in view.movable():
        knob = view.space[name]
        if knob.kind != "power_of_two" or name in partners or steps_of(view, name) < LEAST_STEPS:
            continue
        place = next_place(view, name)
        if place is not None:
            value = knob.at(place)
            config = view.space.repaired(view.config_of({name: value}), fixed={name, *view.frozen})
            if view.fresh(config):
                said = f"pathfinder: walk along {name} to {value!r}"
                return Candidate(changes=view.changes_to(config), reason=said)
    return None


def next_place(view: View, name: str) -> float | None:
    """Where a walk goes on: the longer side first, away from the start while that pays, then
    halfway between the best place and the better one beside it. None at its end."""
    knob, unit = view.space[name], 1 / steps_of(view, name)
    results: dict[float, float] = {}
    for trial in view.known():
        place, value = knob.position(trial.config[name]), cost(trial, view)
        results[place] = min(value, results.get(place, value))
    start = knob.position(view.trace[0].config[name])
    if start not in results or len(results) > STRIDES:
        return None
    here = min(results, key=lambda place: results[place])
    way = -1.0 if start >= 0.5 else 1.0
    if here != start:
        way = 1.0 if here > start else -1.0
    elif any((place - start) * way > 0 for place in results):
        way = -way
    if any((place - here) * way > 0 for place in results):
        return halfway(results, here, unit)
    step = max(STRIDE * unit, abs(here - start))
    place = min(1.0, max(0.0, here + way * step))
    return place if abs(place - here) > unit / 2 else halfway(results, here, unit)


def halfway(results: dict[float, float], here: float, unit: float) -> float | None:
    """Between the best place and the better one beside it, where nobody has looked."""
    beside = [
        max((place for place in results if place < here), default=here),
        min((place for place in results if place > here), default=here),
    ]
    apart = [place for place in beside if abs(place - here) > 1.5 * unit]
    if not apart:
        return None
    other = min(apart, key=lambda place: results[place])
    return round((here + other) / 2 / unit) * unit


def cost(trial: Trial, view: View) -> float:
    """The metric, lower is better; a failed trial is worse than everything."""
    if trial.metric is None:
        return math.inf
    return trial.metric if view.minimize else -trial.metric


def steps_of(view: View, name: str) -> int:
    """How many steps a knob with few values has from end to end; 0 for a continuous one."""
    knob = view.space[name]
    if knob.kind == "choice":
        return len(knob.choices) - 1
    if knob.kind == "power_of_two":
        return len(knob.near(knob.default)) - 1
    return 0


def is_named(view: View, name: str) -> bool:
    """Whether a knob's values are names, which have no order."""
    return any(isinstance(choice, str) for choice in view.space[name].choices)


# --- the model ---


class Model:
    """A Gaussian process over points: a curve for each knob, and a term for all of them."""

    def __init__(self, view: View) -> None:
        known = telling(view)
        self.named = np.array([is_named(view, n) for n in view.movable()])
        self.points = np.array([view.places(trial.config) for trial in known])
        costs = np.array([cost(trial, view) for trial in known])
        unit = unit_of(costs)
        values, slope = squeezed(costs / unit)
        self.middle, self.scale = float(values.mean()), float(values.std()) or 1.0
        self.values = (values - self.middle) / self.scale
        repeats = np.array([max(1, trial.measurements) for trial in known])
        noise = min(HUGE, (view.noise or 0.0) / unit) * slope / self.scale
        noise = np.minimum(noise, math.sqrt(HUGE))
        self.noise = noise**2 / repeats + TINY
        self.apart = self.distances(self.points, self.points)
        self.strengths = self.fit()
        self.factor = cho_factor(self.covariance(self.strengths), lower=True)
        self.weights = cho_solve(self.factor, self.values)

    def distances(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Squared distances, knob by knob; between two names it is more than their places say."""
        apart = (a.T[:, :, None] - b.T[:, None, :]) ** 2
        other = np.where(apart[self.named] > 0, 0.5, 0.0)
        apart[self.named] = 0.5 * apart[self.named] + other
        return apart / (2 * LENGTH**2)

    def shares(self, strengths: np.ndarray, apart: np.ndarray) -> np.ndarray:
        """The covariance's parts: a curve for each knob, then the common term."""
        curves = np.exp(2 * strengths[: len(apart), None, None] - apart)
        weight = np.exp(2 * (strengths[: len(apart)] - strengths[: len(apart)].max()))
        together = np.exp(2 * strengths[len(apart)] - np.tensordot(weight, apart, 1))
        return np.concatenate([curves, together[None]])

    def covariance(self, strengths: np.ndarray) -> np.ndarray:
        """Of the trials, with their noise."""
        noise = self.noise + math.exp(2 * strengths[-1])
        return self.shares(strengths, self.apart).sum(0) + np.diag(noise)

    def fit(self) -> np.ndarray:
        """Logarithms of the strengths of all parts and of the noise: the likeliest ones."""
        knobs = self.points.shape[1]
        usual = np.array([*[math.log(CURVE)] * knobs, math.log(JOINT), math.log(NOISE)])

        def loss(strengths: np.ndarray) -> tuple[float, np.ndarray]:
            shares, extra = self.shares(strengths, self.apart), math.exp(2 * strengths[-1])
            factor = cho_factor(shares.sum(0) + np.diag(self.noise + extra), lower=True)
            weights = cho_solve(factor, self.values)
            inner = cho_solve(factor, np.eye(len(weights))) - np.outer(weights, weights)
            slope = np.append((shares * inner).sum((1, 2)), extra * np.trace(inner))
            off = strengths - usual
            value = self.values @ weights / 2 + np.log(np.diag(factor[0])).sum() + off @ off / 2
            return float(value), slope + off

        bounds = [(-5.0, 2.0)] * len(usual)
        return np.asarray(minimize(loss, usual, jac=True, method="L-BFGS-B", bounds=bounds).x)

    def predict(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation in the model's unit, lower is better."""
        cross = self.shares(self.strengths, self.distances(points, self.points)).sum(0)
        prior = np.exp(2 * self.strengths[:-1]).sum()
        variance = prior - (cross * cho_solve(self.factor, cross.T).T).sum(1)
        return cross @ self.weights, np.sqrt(np.maximum(variance, TINY))


def telling(view: View) -> list[Trial]:
    """The valid trials in order; of more than MOST the best half and the latest ones."""
    known = view.known()
    good = sorted(known[: -MOST // 2], key=lambda trial: (cost(trial, view), trial.number))
    kept = {trial.number for trial in [*good[: MOST // 2], *known[-MOST // 2 :]]}
    return known if len(known) <= MOST else [t for t in known if t.number in kept]


def unit_of(costs: np.ndarray) -> float:
    """1.0; the largest of results that can't be reckoned with as they are."""
    largest = float(np.abs(costs[np.isfinite(costs)]).max(initial=0.0))
    return 1.0 if largest == 0.0 or 1 / HUGE <= largest <= HUGE else largest


def squeezed(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The costs with bad ones drawn together (a failure is as the worst), and their slope."""
    finite = costs[np.isfinite(costs)] if np.isfinite(costs).any() else np.zeros(1)
    costs = np.where(np.isfinite(costs), costs, finite.max())
    unit = float(np.median(finite) - finite.min()) or float(np.ptp(finite)) or 1.0
    unit = max(unit, float(np.ptp(finite)) / HUGE)
    above = SQUEEZE * (costs - finite.min()) / unit
    return np.log1p(above) * unit / SQUEEZE, 1 / (1 + above)


def modelled_gain(trial: Trial, view: View) -> float:
    """How much better than the best one the trial is by the model, which knows it."""
    after = replace(view, trace=(*view.trace, trial))
    model = Model(after)
    mean, _ = model.predict(np.array([after.places(c) for c in (view.best.config, trial.config)]))
    return float(mean[0] - mean[1])


# --- candidates ---


def expected_best(view: View, pending: list[Config]) -> Candidate | None:
    """The fresh configuration within reach with the largest expected improvement."""
    if not view.known():
        return single_step(view, pending)
    model = Model(view)
    mean, _ = model.predict(model.points)
    order = np.argsort(mean, kind="stable")
    goods, target = model.points[order[:GOOD]], float(mean[order[0]])
    steps = np.array([steps_of(view, name) for name in view.movable()])
    rng = np.random.default_rng(view.random.randrange(2**31))
    reach = np.where(model.named, 1.0, np.maximum(RADIUS, (steps > 0) / np.maximum(steps, 1)))
    pool = snapped(sampled(rng, goods, reach), steps)
    seen, scored = [pool], [improvement(model, pool, target)]
    for _ in range(CLIMBS):
        top = seen[-1][int(np.argmax(scored[-1]))]
        seen.append(snapped(around(top, reach), steps))
        scored.append(improvement(model, seen[-1], target))
    points, scores = np.concatenate(seen), np.concatenate(scored)
    for i in np.argsort(-scores, kind="stable"):
        config = view.placed(float(place) for place in points[i])
        if view.fresh(config) and config not in pending:
            said = f"pathfinder: the model expects {scores[i]:.3f} deviations of improvement"
            return Candidate(changes=view.changes_to(config), reason=said)
    return single_step(view, pending)


def single_step(view: View, pending: list[Config]) -> Candidate | None:
    """A fresh configuration with one knob moved as little as possible."""
    for name in view.movable():
        for value in view.space[name].near(view.best.config[name])[1:]:
            config = view.space.repaired(view.config_of({name: value}), fixed={name, *view.frozen})
            if view.fresh(config) and config not in pending:
                changes = view.changes_to(config)
                return Candidate(changes=changes, reason=f"pathfinder: {name} alone")
    return None


def improvement(model: Model, points: np.ndarray, target: float) -> np.ndarray:
    """Expected improvement below `target`."""
    mean, deviation = model.predict(points)
    z = (target - mean) / deviation
    return deviation * (z * ndtr(z) + np.exp(-z * z / 2) / math.sqrt(2 * math.pi))


def sampled(rng: np.random.Generator, goods: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Points within reach of the good ones, with about 1 to KNOBS knobs moved."""
    knobs = goods.shape[1]
    wanted = rng.integers(1, KNOBS + 1, POOL) / knobs
    moved = rng.random((POOL, knobs)) < wanted[:, None]
    away = rng.uniform(-1, 1, (POOL, knobs)) * reach
    return np.clip(goods[np.arange(POOL) % len(goods)] + moved * away, 0, 1)


def around(point: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Points with one knob moved."""
    moves = np.concatenate([np.diag(reach * share) for share in MOVES])
    return np.clip(point + moves, 0, 1)


def snapped(points: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Points with the knobs that have few values at one of those."""
    whole = np.maximum(steps, 1)
    return np.where(steps > 0, np.round(points * whole) / whole, points)
