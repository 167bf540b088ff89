"""Restart: after a long time without progress, start afresh from another place.

After PATIENCE trials without progress the next KICKS trials leave the rut: each moves KNOBS knobs
of the best configuration to places within REACH where nobody has looked yet. Afterwards the prior
is told to forget what came before. What is kept is decided as always: nothing good is given up.
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
        """Kicks while restarting, else what the prior says about the time since the restart."""
        chosen: list[Candidate] = []
        seen = {key(trial.config) for trial in view.trace}
        idle = trials_without_progress(view)
        for i in range(count):
            if (idle + i) % (PATIENCE + KICKS) >= PATIENCE:
                candidate = kick(view, seen)
                if candidate is not None:
                    seen.add(key(view.config_of(candidate.changes)))
                    chosen.append(candidate)
        if len(chosen) < count:
            chosen += from_prior(view, guidance(view, idle), count - len(chosen))
        fallback = None if chosen else kick(view, seen)
        return chosen if fallback is None else [fallback]


def key(config: Config) -> str:
    """A configuration as text, to compare it with others."""
    return repr(sorted(config.items()))


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
    names = [n for n in view.free() if view.space[n].at(0.0) != view.space[n].at(1.0)]
    view.random.shuffle(names)
    return sorted(names, key=lambda name: tried[name])


def guidance(view: View, idle: int) -> str:
    """After a restart: what the prior should forget, and where it should look."""
    if idle < PATIENCE + KICKS:
        return ""
    since = len(view.trace) - idle % (PATIENCE + KICKS)
    fresh = " ".join(f"Explore {name}." for name in least_tried(view)[:3])
    return f"Start afresh: forget the trials before number {since}. {fresh}"


def from_prior(view: View, text: str, count: int) -> list[Candidate]:
    """What the prior says, asked up to MAX_ASKS times, without what is invalid or frozen."""
    found: list[Candidate] = []
    for _ in range(MAX_ASKS):
        for answer in view.ask(text, count - len(found)):
            frozen = any(name in view.frozen for name in answer.changes)
            if not frozen and not view.space.problems(view.config_of(answer.changes)):
                found.append(answer)
        if len(found) >= count:
            break
    return found[:count]


def kick(view: View, seen: set[str]) -> Candidate | None:
    """A new valid configuration with KNOBS knobs moved to where nobody has looked yet."""
    names = least_tried(view)
    for _ in range(ATTEMPTS):
        picked = sorted(view.random.sample(names, min(KNOBS, len(names))))
        changes: dict[str, KnobValue] = {}
        for name in picked:
            value = unseen_value(view, name)
            if value != view.best.config[name]:
                changes[name] = value
        config = view.config_of(changes)
        if changes and not view.space.problems(config) and key(config) not in seen:
            return Candidate(changes=changes, reason=f"restart: a kick of {', '.join(changes)}")
    return None


def unseen_value(view: View, name: str) -> KnobValue:
    """Of some random values within REACH, the one farthest from all that were tried."""
    knob, here = view.space[name], view.space[name].position(view.best.config[name])
    values = [trial.config[name] for trial in view.trace if name in trial.config]
    tried = [knob.position(value) for value in values if knob.problem(value) is None]
    drawn = [knob.at(here + view.random.uniform(-REACH, REACH)) for _ in range(SAMPLES)]
    return max(drawn, key=lambda value: min(abs(knob.position(value) - p) for p in tried))
