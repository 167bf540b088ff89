"""Multi-scale bandit: learns which knob pays, and searches each knob from large steps to small.

Each knob is an arm; its reward is the share of its trials that were kept, with a bonus for knobs
seldom tried (UCB). A step that was kept is repeated; after a failure the direction turns, and
after both directions failed the step becomes smaller. A share of the trials goes to the prior.
"""

from math import log, sqrt

from sandbox.mechanism import Candidate, Config, KnobValue, Mechanism, View

SCALES = (0.3, 0.12, 0.04)  # step sizes as shares of a knob's range, large to small
EXPLORATION = 0.4  # weight of the bonus for knobs seldom tried
PRIOR_SHARE = 0.2  # share of the trials that the prior chooses
HALVE_AFTER = 20  # trials after which what was learned counts half
ATTEMPTS = 200  # draws from the whole space, where nothing new is near

Key = frozenset[tuple[str, KnobValue]]


class Bandit(Mechanism):
    """Picks the knob by UCB and the step by what happened on that knob."""

    name = "bandit"

    def propose(self, view: View, count: int) -> list[Candidate]:
        """One step on a knob for each candidate; sometimes what the prior says."""
        seen = {key(trial.config) for trial in view.trace}
        chosen: list[Candidate] = []
        for _ in range(count):
            candidate = self.from_prior(view, seen) or best_arm(view, seen)
            if candidate is not None:
                seen.add(key(view.config_of(candidate.changes)))
                chosen.append(candidate)
        return chosen

    def from_prior(self, view: View, seen: set[Key]) -> Candidate | None:
        """The prior's candidate, in its share of the trials and if it is new and valid."""
        if view.random.random() >= PRIOR_SHARE:
            return None
        answers = view.ask("Explore a knob that has not been tried yet.", 1)
        return next((a for a in answers if is_new(a.changes, view, seen)), None)


def key(config: Config) -> Key:
    """A configuration to compare with others; 1 and 1.0 are the same value."""
    return frozenset(config.items())


def is_new(changes: Config, view: View, seen: set[Key]) -> bool:
    """Whether `changes` are valid, free and give a configuration that was not tried."""
    config = view.config_of(changes)
    if view.space.problems(config) or key(config) in seen:
        return False
    return not any(
        name in view.frozen and value != view.best.config[name] for name, value in changes.items()
    )


def score(view: View, name: str) -> float:
    """Upper confidence bound of a knob's reward; later trials count more."""
    pulls, wins, now = 0.0, 0.0, len(view.trace)
    for trial in view.trace[1:]:
        if name in trial.changes:
            weight = 0.5 ** ((now - trial.number) / HALVE_AFTER) / len(trial.changes)
            pulls += weight
            wins += weight * (trial.status == "kept")
    return (wins + 0.5) / (pulls + 1) + EXPLORATION * sqrt(log(now + 1) / (pulls + 1))


def best_arm(view: View, seen: set[Key]) -> Candidate | None:
    """A step on the knob with the highest score that has an open step. Where none has one, the
    nearest new value of a knob; where each was tried, anything new."""
    names = view.free()
    view.random.shuffle(names)
    names.sort(key=lambda name: -score(view, name))
    for name in names:
        for step in steps(view, name):
            changes = move(view, name, step)
            if changes and is_new(changes, view, seen):
                reason = (
                    f"bandit: {name} by {step:+.2f} of its range (score {score(view, name):.2f})"
                )
                return Candidate(changes=changes, reason=reason)
    for name in names:
        for value in view.space[name].near(view.best.config[name])[1:]:
            changes = adjusted(view, {name: value})
            if is_new(changes, view, seen):
                return Candidate(changes=changes, reason=f"bandit: {name}, the nearest new value")
    for _ in range(ATTEMPTS):
        changes = view.changes_to(view.placed(view.random.random() for _ in view.movable()))
        if is_new(changes, view, seen):
            return Candidate(changes=changes, reason="bandit: somewhere new")
    return None


def steps(view: View, name: str) -> list[float]:
    """Steps for a knob, best first: as last kept; turned after a failure; smaller after two."""
    knob, failures, sign = view.space[name], 0, 0.0
    base: KnobValue = view.trace[0].config[name]
    for trial in view.trace[1:]:
        value = trial.changes.get(name)
        if value is None or value == base or knob.problem(value) is not None:
            continue
        turned = 1.0 if knob.position(value) > knob.position(base) else -1.0
        if trial.status == "kept":
            base, sign, failures = value, turned, 0
        else:
            failures += 1
            sign = sign or turned
    if not sign:
        sign = 1.0 if knob.position(base) < 0.5 else -1.0
    plan = [s * scale for scale in SCALES for s in (sign, -sign)]
    skip = min(failures, len(plan) - 2)
    return plan[skip:] + plan[:skip]


def move(view: View, name: str, step: float) -> dict[str, KnobValue]:
    """The change for a step, at least to the next value, with a constraint's partner adjusted."""
    knob, old = view.space[name], view.best.config[name]
    for factor in (1, 2, 4):
        new = knob.at(knob.position(old) + factor * step)
        if new != old:
            return adjusted(view, {name: new})
    return {}


def adjusted(view: View, changes: dict[str, KnobValue]) -> dict[str, KnobValue]:
    """`changes`, with the other half of a broken constraint moved as little as needed."""
    for rule in view.space.constraints:
        config = view.config_of(changes)
        partner = rule.of if rule.name in changes else rule.name
        if not rule.problem(config) or partner in view.frozen or partner not in view.space:
            continue
        knob = view.space[partner]
        here = knob.position(config[partner])
        grid = sorted((i / 32 for i in range(33)), key=lambda p: abs(p - here))
        for place in grid:
            fixed = {**changes, partner: knob.at(place)}
            if rule.problem(view.config_of(fixed)) is None:
                changes = fixed
                break
    return changes
