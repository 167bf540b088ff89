"""Tabu search: a move that has just failed is not tried again for a while.

A move is a knob and a direction (up, down, or one value of a choice). Moves of the last TENURE
trials that were not kept are tabu, and no configuration is ever tried twice. The prior is asked
again with that as guidance; where it doesn't listen, the least tried open move is made instead.

Two aspiration criteria lift a tabu (Glover, Tabu Search, ORSA Journal on Computing 1, 1989). A
trial that is kept lifts it from the knobs that it moved: they stand elsewhere now, and what failed
before says little of the new best one's neighbours. Where every move is tabu, the one that failed
longest ago is made. What a move would lead to is not known before its trial, so that the usual
criterion, a result better than the best one, can't be asked for.
"""

from collections import Counter

from sandbox.mechanism import Candidate, Config, Knob, KnobValue, Mechanism, View

Move = tuple[str, str]

TENURE = 6  # trials that a failed move stays tabu
MAX_ASKS = 3  # times that the prior is asked for one proposal
STEP = 0.15  # size of an own move, as a share of the knob's range
ATTEMPTS = 200  # draws from the whole space, where nothing new is near


class Tabu(Mechanism):
    """Refuses repeats and moves that have just failed."""

    name = "tabu"

    def propose(self, view: View, count: int) -> list[Candidate]:
        """What the prior says, unless it is tabu; else an open move."""
        tabu = failed_moves(view)
        chosen: list[Candidate] = []
        taken: list[Config] = []
        guidance = ""
        for _ in range(MAX_ASKS):
            for candidate in view.ask(guidance, count - len(chosen)):
                if is_open(candidate.changes, view, tabu, taken):
                    taken.append(view.config_of(candidate.changes))
                    chosen.append(candidate)
            if len(chosen) >= count:
                return chosen[:count]
            guidance = advice(tabu)
        while len(chosen) < count:
            own = own_move(view, tabu, taken) or elsewhere(view, taken)
            if own is None:
                break
            taken.append(view.config_of(own.changes))
            chosen.append(own)
        return chosen


def direction(knob: Knob, old: KnobValue, new: KnobValue) -> str:
    """`up`, `down`, or the new value of a choice."""
    if knob.kind == "choice":
        return f"to {new}"
    return "up" if knob.position(new) > knob.position(old) else "down"


def moves(changes: Config, base: Config, view: View) -> set[Move]:
    """The moves that `changes` make from `base`; what is outside the space is no move."""
    found = set()
    for name, new in changes.items():
        knob, old = view.space.get(name), base.get(name)
        if knob is not None and old is not None and new != old and knob.problem(new) is None:
            found.add((name, direction(knob, old, new)))
    return found


def failed_moves(view: View) -> dict[Move, int]:
    """Moves of the last TENURE trials that were not kept, each with the latest such trial; not
    those of knobs that a later trial moved and was kept."""
    tabu: dict[Move, int] = {}
    base = view.trace[0].config
    first = len(view.trace) - TENURE
    for i, trial in enumerate(view.trace):
        if trial.status == "kept":
            base = trial.config
            tabu = {move: when for move, when in tabu.items() if move[0] not in trial.changes}
        elif i >= first:
            tabu |= dict.fromkeys(moves(trial.changes, base, view), i)
    return tabu


def is_new(config: Config, view: View, taken: list[Config]) -> bool:
    """Valid, and neither tried nor proposed just now."""
    return view.fresh(config) and config not in taken


def is_open(changes: Config, view: View, tabu: dict[Move, int], taken: list[Config]) -> bool:
    """Whether `changes` are valid, free, new and not tabu."""
    if not is_new(view.config_of(changes), view, taken):
        return False
    made = moves(changes, view.best.config, view)
    return not view.frozen & changes.keys() and not made & tabu.keys()


def advice(tabu: dict[Move, int]) -> str:
    """Guidance for the prior."""
    listed = ", ".join(f"{name} {where}" for name, where in sorted(tabu)) or "none"
    names = sorted({name for name, _ in tabu})
    refused = " ".join(f"Do not touch {name}." for name in names)
    return f"Do not repeat a configuration. These moves have just failed: {listed}. {refused}"


def own_move(view: View, tabu: dict[Move, int], taken: list[Config]) -> Candidate | None:
    """A step on the least tried knob whose direction is open; where every move is tabu, the new
    step whose move failed longest ago: a trial that was never made is better than none."""
    tried = Counter(name for trial in view.trace for name in trial.changes)
    names = view.free()
    view.random.shuffle(names)
    names.sort(key=lambda name: tried[name])
    ways = [(name, sign) for name in names for sign in view.random.sample((1, -1), 2)]
    for name, sign in ways:
        if changes := step(name, sign, view, tabu, taken):
            reason = f"tabu: {name} was tried {tried[name]} times and is open"
            return Candidate(changes=changes, reason=reason)
    new = [changes for way in ways if (changes := step(*way, view, {}, taken))]
    if not new:
        return None
    oldest = min(new, key=lambda c: max(tabu[m] for m in moves(c, view.best.config, view)))
    reason = f"tabu: every move is tabu, that of {', '.join(oldest)} failed longest ago"
    return Candidate(changes=oldest, reason=reason)


def step(
    name: str, sign: int, view: View, tabu: dict[Move, int], taken: list[Config]
) -> dict[str, KnobValue]:
    """The least open step of a knob in a direction: on a coarse scale the usual one rounds to
    nothing. Empty where there is none."""
    knob, value = view.space[name], view.best.config[name]
    for times in (1, 2, 4, 8):
        changes = {name: knob.at(knob.position(value) + sign * STEP * times)}
        if is_open(changes, view, tabu, taken):
            return changes
    return {}


def elsewhere(view: View, taken: list[Config]) -> Candidate | None:
    """The nearest new value of a knob, with the other half of a constraint; else anything new."""
    names = view.movable()
    view.random.shuffle(names)
    for name in names:
        for value in view.space[name].near(view.best.config[name])[1:]:
            config = view.space.repaired(view.config_of({name: value}), fixed={name, *view.frozen})
            if is_new(config, view, taken):
                reason = f"tabu: {name}, the nearest new value"
                return Candidate(changes=view.changes_to(config), reason=reason)
    for _ in range(ATTEMPTS if names else 0):
        config = view.placed(view.random.random() for _ in names)
        if is_new(config, view, taken):
            return Candidate(changes=view.changes_to(config), reason="tabu: somewhere new")
    return None
