"""Restart: after a long time without progress, start afresh from another place.

After PATIENCE trials without progress the next KICKS trials leave the rut: each moves KNOBS knobs
of the best configuration to places within REACH where nobody has looked yet. Afterwards the prior
is told to forget what came before. What is kept is decided as always: nothing good is given up, and
nothing is tried twice. A random restart from the best one, as in iterated local search (Lourenco,
Martin, Stutzle 2003).
"""

from collections import Counter

from sandbox.mechanism import Candidate, Config, KnobValue, Mechanism, View

PATIENCE = 4  # trials without progress before a restart
KICKS = 6  # trials of a restart
KNOBS = 2  # knobs that one kick moves
REACH = 0.35  # how far a kick goes at most, as a share of a knob's range
MAX_ASKS = 3  # times that the prior is asked for valid answers
SAMPLES = 4  # random values of which a kick takes the farthest from what was tried
ATTEMPTS = 30


class Restart(Mechanism):
    """Leaves a rut with kicks, then has the prior forget it."""

    name = "restart"

    def propose(self, view: View, count: int) -> list[Candidate]:
        """Kicks while restarting, else what the prior says about the time since the restart; where
        that gives too few, kicks all the same. Nothing is tried twice."""
        chosen: list[Candidate] = []
        taken: list[Config] = []
        idle = trials_without_progress(view)
        due = sum((idle + i) % (PATIENCE + KICKS) >= PATIENCE for i in range(count))
        add_own(view, due, chosen, taken)
        if len(chosen) < count:
            chosen += from_prior(view, guidance(view, idle), count - len(chosen), taken)
        add_own(view, count, chosen, taken)
        return chosen


def add_own(view: View, upto: int, chosen: list[Candidate], taken: list[Config]) -> None:
    """Fill `chosen` up to `upto` with kicks; where none is new, with anything new."""
    while len(chosen) < upto:
        candidate = kick(view, taken) or elsewhere(view, taken)
        if candidate is None:
            return
        taken.append(view.config_of(candidate.changes))
        chosen.append(candidate)


def is_new(config: Config, view: View, taken: list[Config]) -> bool:
    """Valid, and neither tried nor proposed just now."""
    return view.fresh(config) and config not in taken


def trials_without_progress(view: View) -> int:
    """How many trials came after the last one that was kept."""
    return (
        len(view.trace)
        - 1
        - max(i for i, trial in enumerate(view.trace) if trial.number == view.best.number)
    )


def least_tried(view: View) -> list[str]:
    """Free knobs that can move at all, least tried first, ties in random order."""
    tried = Counter(name for trial in view.trace for name in trial.changes)
    names = view.movable()
    view.random.shuffle(names)
    return sorted(names, key=lambda name: tried[name])


def guidance(view: View, idle: int) -> str:
    """After a restart: what the prior should forget, and where it should look."""
    if idle < PATIENCE + KICKS:
        return ""
    since = len(view.trace) - idle % (PATIENCE + KICKS)
    fresh = " ".join(f"Explore {name}." for name in least_tried(view)[:3])
    return f"Start afresh: forget the trials before number {since}. {fresh}"


def from_prior(view: View, text: str, count: int, taken: list[Config]) -> list[Candidate]:
    """What the prior says, asked up to MAX_ASKS times, without what is invalid, frozen or tried;
    `taken` gets the configurations."""
    found: list[Candidate] = []
    for _ in range(MAX_ASKS):
        for answer in view.ask(text, count - len(found)):
            config = view.config_of(answer.changes)
            if not view.frozen & answer.changes.keys() and is_new(config, view, taken):
                taken.append(config)
                found.append(answer)
        if len(found) >= count:
            break
    return found[:count]


def kick(view: View, taken: list[Config]) -> Candidate | None:
    """A new valid configuration with KNOBS knobs moved to where nobody has looked yet."""
    names = least_tried(view)
    for _ in range(ATTEMPTS if names else 0):
        picked = sorted(view.random.sample(names, min(KNOBS, len(names))))
        changes: dict[str, KnobValue] = {}
        for name in picked:
            value = unseen_value(view, name)
            if value != view.best.config[name]:
                changes[name] = value
        if changes and is_new(view.config_of(changes), view, taken):
            return Candidate(changes=changes, reason=f"restart: a kick of {', '.join(changes)}")
    return None


def elsewhere(view: View, taken: list[Config]) -> Candidate | None:
    """The nearest new value of a knob, with the other half of a constraint; else anything new."""
    names = least_tried(view)
    for name in names:
        for value in view.space[name].near(view.best.config[name])[1:]:
            config = view.space.repaired(view.config_of({name: value}), fixed={name, *view.frozen})
            if is_new(config, view, taken):
                reason = f"restart: {name}, the nearest new value"
                return Candidate(changes=view.changes_to(config), reason=reason)
    for _ in range(5 * ATTEMPTS if names else 0):
        config = view.placed(view.random.random() for _ in names)
        if is_new(config, view, taken):
            return Candidate(changes=view.changes_to(config), reason="restart: somewhere new")
    return None


def unseen_value(view: View, name: str) -> KnobValue:
    """Of some random values within REACH, the one farthest from all that were tried."""
    knob, here = view.space[name], view.space[name].position(view.best.config[name])
    values = [trial.config[name] for trial in view.trace if name in trial.config]
    tried = [knob.position(value) for value in values if knob.problem(value) is None]
    drawn = [knob.at(here + view.random.uniform(-REACH, REACH)) for _ in range(SAMPLES)]
    return max(
        drawn, key=lambda value: min((abs(knob.position(value) - p) for p in tried), default=0.0)
    )
