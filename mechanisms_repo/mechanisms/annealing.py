"""Simulated annealing: a worse trial may become the base of the next ones, ever more seldom.

Its chance falls with how much worse it is and with the trials since it was loaded. That leads out
of a valley that is good only near by. Steps shrink with the temperature; PRIOR_SHARE of them are
the prior's. Once it is cold, the best configuration ever seen is measured again and taken up.
"""

from math import exp
from statistics import median
from typing import Any

from sandbox.mechanism import Candidate, Config, KnobValue, Mechanism, Trial, View

HEAT = 0.5  # temperature at the start, in units of what results differ by
HALF_LIFE = 6  # trials after which the temperature is half
COLD = 0.1  # share of the first temperature at which it goes back to the best ever
STEP = 0.3  # step at the start, as a share of a knob's range
LEAST_STEP = 0.06  # smallest step
PRIOR_SHARE = 0.3  # share of the trials that the prior chooses
ATTEMPTS = 40  # own steps that may be stale or invalid


class Annealing(Mechanism):
    """Accepts by Metropolis' rule, with a temperature that falls from its first trial on."""

    name = "annealing"

    def __init__(self) -> None:
        self.start: int | None = None  # trials that were there before it, the baseline aside

    def propose(self, view: View, count: int) -> list[Candidate]:
        """Steps from the base, the prior's share of them; when cold, back to the best ever."""
        heat = self.temperature(view)
        back = None if heat > 0 else way_back(view)
        chosen = [] if back is None else [back]
        taken = [view.config_of(c.changes) for c in chosen]
        while len(chosen) < count:
            candidate = from_prior(view, taken) or own_step(view, taken, heat)
            if candidate is None:
                break
            chosen.append(candidate)
            taken.append(view.config_of(candidate.changes))
        return chosen

    def accept(self, trial: Trial, view: View) -> bool:
        """Better ones always, worse ones with a chance."""
        gain = view.gain(trial)
        if gain is None or gain > 0:
            return trial.metric is not None
        heat = self.temperature(view) * unit(view)
        return heat > 0 and view.random.random() < exp(max(gain / heat, -50.0))

    def temperature(self, view: View) -> float:
        """HEAT at its start, half of it after each HALF_LIFE trials, 0 when it is cold."""
        if self.start is None:
            self.start = len(view.trace) - 1
        share = float(0.5 ** ((len(view.trace) - self.start) / HALF_LIFE))
        return HEAT * share if share > COLD else 0.0

    def state(self) -> dict[str, Any]:
        """When it began."""
        return {} if self.start is None else {"start": self.start}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on cooling."""
        self.start = int(state["start"]) if "start" in state else None


def unit(view: View) -> float:
    """What results differ by: the median distance of the better half from the best one."""
    results = sorted(results_of(view))
    better = results[: max(2, len(results) // 2 + 1)]
    return median([value - better[0] for value in better[1:]] or [0.0])


def results_of(view: View) -> list[float]:
    """The metrics of the trials, lower is better."""
    sign = 1.0 if view.minimize else -1.0
    return [sign * t.metric for t in view.known() if t.metric is not None]


def way_back(view: View) -> Candidate | None:
    """The best configuration ever seen, if another one is the base now and it was tried once."""
    trials = [trial for trial in view.known() if trial.metric is not None]
    if not trials:
        return None
    results = results_of(view)
    ever = trials[results.index(min(results))]
    changes = view.changes_to(ever.config)
    repeated = sum(trial.config == ever.config for trial in view.trace)
    if not changes or repeated > 1 or any(name in view.frozen for name in changes):
        return None
    return Candidate(changes=changes, reason=f"annealing: back to trial {ever.number}, once more")


def from_prior(view: View, taken: list[dict[str, KnobValue]]) -> Candidate | None:
    """The prior's candidate in its share, if it is free, valid and new."""
    if view.random.random() >= PRIOR_SHARE:
        return None
    for answer in view.ask("", 1):
        frozen = any(name in view.frozen for name in answer.changes)
        if not frozen and is_new(view, view.config_of(answer.changes), taken):
            return answer
    return None


def is_new(view: View, config: Config, taken: list[dict[str, KnobValue]]) -> bool:
    """Valid, and neither tried nor proposed just now."""
    return view.fresh(config) and config not in taken


def own_step(view: View, taken: list[dict[str, KnobValue]], heat: float) -> Candidate | None:
    """One or two knobs moved by about the step of this temperature; else the nearest new value."""
    names = view.movable()
    size = LEAST_STEP + (STEP - LEAST_STEP) * heat / HEAT
    for _ in range(ATTEMPTS if names else 0):
        picked = view.random.sample(names, min(len(names), view.random.choice((1, 1, 2))))
        config = {**view.best.config}
        for name in picked:
            config[name] = stepped(view, name, size)
        config = view.space.repaired(config, fixed={picked[0], *view.frozen})
        if is_new(view, config, taken):
            said = f"annealing: a step of {', '.join(picked)} at temperature {heat:.2f}"
            return Candidate(changes=view.changes_to(config), reason=said)
    return nearest(view, names, taken)


def stepped(view: View, name: str, size: float) -> KnobValue:
    """A knob's value a random step away; at least the next one."""
    knob, value = view.space[name], view.best.config[name]
    if any(isinstance(choice, str) for choice in knob.choices):
        return view.random.choice([choice for choice in knob.choices if choice != value])
    new = knob.at(knob.position(value) + view.random.gauss(0.0, size))
    return view.random.choice(knob.near(value)[1:3]) if new == value else new


def nearest(view: View, names: list[str], taken: list[dict[str, KnobValue]]) -> Candidate | None:
    """The first new configuration that differs in one knob; where there is none, any other."""
    for name in names:
        for value in view.space[name].near(view.best.config[name])[1:]:
            config = view.space.repaired(view.config_of({name: value}), fixed={name, *view.frozen})
            if is_new(view, config, taken):
                return Candidate(changes=view.changes_to(config), reason=f"annealing: {name} alone")
    for _ in range(5 * ATTEMPTS if names else 0):
        config = view.placed(view.random.random() for _ in names)
        if is_new(view, config, taken):
            return Candidate(changes=view.changes_to(config), reason="annealing: somewhere new")
    return None
