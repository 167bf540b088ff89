"""Orthogonal exploration: when the search is stuck, a designed experiment instead of guesses.

After PATIENCE trials without progress, up to seven of the least tried knobs are varied together in
the eight runs of an L8 array (each knob half of the time at either of two levels, all pairs
balanced). The mean of the four runs at each level tells each knob's effect; the combination of
the better levels is tried last. Then the prior goes on. What was tried before is not tried again:
such a row of the array is left out.
"""

from collections import Counter
from statistics import fmean
from typing import Any

from sandbox.mechanism import Candidate, Config, KnobValue, Mechanism, Trial, View

PATIENCE = 3  # trials without progress before an experiment
STEP = 0.12  # distance of a level from the best value, as a share of the knob's range
FACTORS = 7  # knobs in one experiment, at most 7
MAX_ASKS = 3  # times that the prior is asked for valid and new answers
ATTEMPTS = 200  # draws from the whole space, where nothing new is near
ROWS = 8

Levels = dict[str, list[KnobValue]]


class Orthogonal(Mechanism):
    """Runs L8 experiments on the knobs that were tried least."""

    name = "orthogonal"

    def __init__(self) -> None:
        self.levels: Levels = {}
        self.start = 0  # number of the experiment's first trial
        self.row = 0  # next row of the array; ROWS: the combination of the better levels
        self.rested = 0  # number of the trial after which the prior goes on

    def propose(self, view: View, count: int) -> list[Candidate]:
        """Rows of the running experiment, or what the prior says."""
        if not self.levels and stuck(view, self.rested):
            self.levels, self.row = plan(view), 0
            self.start = len(view.trace)
        chosen: list[Candidate] = []
        taken: list[Config] = []
        while self.levels and len(chosen) < count:
            if self.row == ROWS and chosen:
                return chosen  # the last rows are still to be measured
            candidate = self.next_row(view)
            if candidate is not None and is_new(view.config_of(candidate.changes), view, taken):
                taken.append(view.config_of(candidate.changes))
                chosen.append(candidate)
        asked = chosen or from_prior(view, "Explore knobs that have not been tried yet.", count)
        return asked or elsewhere(view)

    def next_row(self, view: View) -> Candidate | None:
        """The experiment's next configuration, or None where it can't be tried."""
        if self.row < ROWS:
            target = {n: pair[sign(self.row, i)] for i, (n, pair) in enumerate(self.levels.items())}
            reason = f"orthogonal: run {self.row + 1} of {ROWS} over {', '.join(self.levels)}"
        else:
            target = combination(self.levels, view.trace[self.start :], view.minimize)
            reason = f"orthogonal: the better level of each of {', '.join(self.levels)}"
        self.row += 1
        if self.row > ROWS:
            self.levels, self.rested = {}, len(view.trace)
        changes = difference(target, view)
        return Candidate(changes=changes, reason=reason) if changes else None

    def state(self) -> dict[str, Any]:
        """The running experiment."""
        return {
            "levels": {name: list(pair) for name, pair in self.levels.items()},
            "start": self.start,
            "row": self.row,
            "rested": self.rested,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with an experiment."""
        self.levels = {str(n): list(pair) for n, pair in state.get("levels", {}).items()}
        self.start, self.row = int(state.get("start", 0)), int(state.get("row", 0))
        self.rested = int(state.get("rested", 0))


def is_new(config: Config, view: View, taken: list[Config]) -> bool:
    """Valid, and neither tried nor proposed just now."""
    return view.fresh(config) and config not in taken


def sign(row: int, column: int) -> int:
    """The level (0 or 1) of a column in a row of the L8 array: parity of the common bits."""
    return (row & (column + 1)).bit_count() % 2


def difference(target: Config, view: View) -> dict[str, KnobValue]:
    """`target` as changes against the best configuration; frozen knobs stay."""
    best = view.best.config
    return {n: v for n, v in target.items() if v != best.get(n) and n not in view.frozen}


def from_prior(view: View, text: str, count: int) -> list[Candidate]:
    """What the prior says, asked up to MAX_ASKS times, without what is invalid, frozen or tried."""
    found: list[Candidate] = []
    taken: list[Config] = []
    for _ in range(MAX_ASKS):
        for answer in view.ask(text, count - len(found)):
            config = view.config_of(answer.changes)
            if not view.frozen & answer.changes.keys() and is_new(config, view, taken):
                taken.append(config)
                found.append(answer)
        if len(found) >= count:
            break
    return found[:count]


def elsewhere(view: View) -> list[Candidate]:
    """For a prior that has no valid new answer: one knob at one of its levels or, where both were
    tried, at the nearest new value, with the other half of a constraint; else anything new."""
    names = least_tried(view)
    for name in names:
        for value in [*two_levels(view, name), *view.space[name].near(view.best.config[name])]:
            config = view.space.repaired(view.config_of({name: value}), fixed={name, *view.frozen})
            if view.fresh(config):
                changes = view.changes_to(config)
                return [Candidate(changes=changes, reason=f"orthogonal: {name} alone")]
    for _ in range(ATTEMPTS if names else 0):
        config = view.placed(view.random.random() for _ in names)
        if view.fresh(config):
            changes = view.changes_to(config)
            return [Candidate(changes=changes, reason="orthogonal: somewhere new")]
    return []


def stuck(view: View, rested: int) -> bool:
    """Whether the last PATIENCE trials since the last experiment were all not kept."""
    recent = view.trace[max(rested, 1) :][-PATIENCE:]
    return len(recent) >= PATIENCE and all(trial.status != "kept" for trial in recent)


def least_tried(view: View) -> list[str]:
    """The movable knobs, least tried first, ties in random order."""
    tried = Counter(name for trial in view.trace for name in trial.changes)
    names = view.movable()
    view.random.shuffle(names)
    return sorted(names, key=lambda name: tried[name])


def plan(view: View) -> Levels:
    """Two levels for each of the least tried knobs, such that all rows are valid."""
    levels: Levels = {}
    for name in least_tried(view):
        pair = two_levels(view, name)
        if len(levels) < FACTORS and pair and valid_rows({**levels, name: pair}, view):
            levels[name] = pair
    return levels


def two_levels(view: View, name: str) -> list[KnobValue]:
    """A value below and one above the best; at an edge, or for a choice, the best and another."""
    knob, value = view.space[name], view.best.config[name]
    if knob.kind == "choice":
        others = [choice for choice in knob.choices if choice != value]
        return [value, view.random.choice(others)] if others else []
    here = knob.position(value)
    pair = [knob.at(here - STEP), knob.at(here + STEP)]
    return pair if pair[0] != pair[1] else []


def valid_rows(levels: Levels, view: View) -> bool:
    """Whether each row that the array can have is inside the space."""
    for row in range(ROWS):
        target = {n: pair[sign(row, i)] for i, (n, pair) in enumerate(levels.items())}
        if view.space.problems(view.config_of(target)):
            return False
    return True


def combination(levels: Levels, trials: tuple[Trial, ...], minimize: bool) -> dict[str, KnobValue]:
    """The better level of each knob, by the means over the trials; failures count as the worst."""
    metrics = [trial.metric for trial in trials if trial.metric is not None]
    if not metrics:
        return {}
    worst = max(metrics) if minimize else min(metrics)
    chosen: dict[str, KnobValue] = {}
    for name, pair in levels.items():
        means = []
        for level in pair:
            found = [t for t in trials if t.config.get(name) == level]
            values = [worst if t.metric is None else t.metric for t in found]
            # Divided by a power of two, which is exact: huge values have no sum.
            means.append(fmean(v / 1024 for v in values or [worst]))
        first_is_better = means[0] < means[1] if minimize else means[0] > means[1]
        chosen[name] = pair[0] if first_is_better else pair[1]
    return chosen
