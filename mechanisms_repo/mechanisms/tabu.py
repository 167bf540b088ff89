"""Tabu search: a move that has just failed is not tried again for a while.

A move is a knob and a direction (up, down, or one value of a choice). Moves of the last TENURE
trials that were not kept are tabu, and no configuration is ever tried twice. The prior is asked
again with that as guidance; where it doesn't listen, the least tried open move is made instead.
"""

from collections import Counter

from sandbox.mechanism import Candidate, Config, Knob, KnobValue, Mechanism, View

TENURE = 6  # trials that a failed move stays tabu
MAX_ASKS = 3  # times that the prior is asked for one proposal
STEP = 0.15  # size of an own move, as a share of the knob's range


class Tabu(Mechanism):
    """Refuses repeats and moves that have just failed."""

    name = "tabu"

    def propose(self, view: View, count: int) -> list[Candidate]:
        """What the prior says, unless it is tabu; else an open move."""
        tabu = failed_moves(view)
        seen = {key(trial.config) for trial in view.trace}
        chosen: list[Candidate] = []
        guidance = ""
        for _ in range(MAX_ASKS):
            for candidate in view.ask(guidance, count - len(chosen)):
                if is_open(candidate.changes, view, tabu, seen):
                    seen.add(key(view.config_of(candidate.changes)))
                    chosen.append(candidate)
            if len(chosen) >= count:
                return chosen[:count]
            guidance = advice(tabu)
        return chosen + own_moves(view, tabu, seen, count - len(chosen))


def key(config: Config) -> str:
    """A configuration as text, to compare it with others."""
    return repr(sorted(config.items()))


def direction(knob: Knob, old: KnobValue, new: KnobValue) -> str:
    """`up`, `down`, or the new value of a choice."""
    if knob.kind == "choice":
        return f"to {new}"
    return "up" if knob.position(new) > knob.position(old) else "down"


def moves(changes: Config, base: Config, view: View) -> set[tuple[str, str]]:
    """The moves that `changes` make from `base`; what is outside the space is no move."""
    found = set()
    for name, new in changes.items():
        knob, old = view.space.get(name), base.get(name)
        if knob is not None and old is not None and new != old and knob.problem(new) is None:
            found.add((name, direction(knob, old, new)))
    return found


def failed_moves(view: View) -> set[tuple[str, str]]:
    """Moves of the last TENURE trials that were not kept."""
    tabu: set[tuple[str, str]] = set()
    base = view.trace[0].config
    first = len(view.trace) - TENURE
    for i, trial in enumerate(view.trace):
        if trial.status == "kept":
            base = trial.config
        elif i >= first:
            tabu |= moves(trial.changes, base, view)
    return tabu


def is_open(changes: Config, view: View, tabu: set[tuple[str, str]], seen: set[str]) -> bool:
    """Whether `changes` are valid, free, new and not tabu."""
    config = view.config_of(changes)
    if view.space.problems(config) or key(config) in seen:
        return False
    made = moves(changes, view.best.config, view)
    return not any(name in view.frozen for name, _ in made) and not made & tabu


def advice(tabu: set[tuple[str, str]]) -> str:
    """Guidance for the prior."""
    listed = ", ".join(f"{name} {where}" for name, where in sorted(tabu)) or "none"
    names = sorted({name for name, _ in tabu})
    refused = " ".join(f"Do not touch {name}." for name in names)
    return f"Do not repeat a configuration. These moves have just failed: {listed}. {refused}"


def own_moves(
    view: View, tabu: set[tuple[str, str]], seen: set[str], count: int
) -> list[Candidate]:
    """Steps on the least tried knobs whose direction is open; where every move is tabu, those
    that lead to something new all the same: a trial that was never made is better than none."""
    tried = Counter(name for trial in view.trace for name in trial.changes)
    names = view.free()
    view.random.shuffle(names)
    names.sort(key=lambda name: tried[name])
    found: list[Candidate] = []
    none: set[tuple[str, str]] = set()
    for refused, why in ((tabu, "open"), (none, "new, and every move is tabu")):
        for name in names:
            for sign in view.random.sample((1, -1), 2):
                changes = step(name, sign, view, refused, seen)
                if changes and len(found) < count:
                    seen.add(key(view.config_of(changes)))
                    reason = f"tabu: {name} was tried {tried[name]} times and is {why}"
                    found.append(Candidate(changes=changes, reason=reason))
    return found


def step(
    name: str, sign: int, view: View, tabu: set[tuple[str, str]], seen: set[str]
) -> dict[str, KnobValue]:
    """The least open step of a knob in a direction: on a coarse scale the usual one rounds to
    nothing. Empty where there is none."""
    knob, value = view.space[name], view.best.config[name]
    for times in (1, 2, 4, 8):
        changes = {name: knob.at(knob.position(value) + sign * STEP * times)}
        if is_open(changes, view, tabu, seen):
            return changes
    return {}
