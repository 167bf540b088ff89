"""What is wrong with a search, computed from its trace: streaks, repeats, what was never tried.

Plain numbers for people, for Level 1.5 and for Level 2. Nothing here is an opinion, and nothing
here proposes a remedy (`runner.levels.catalog` and the language model do).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runner.interfaces import ResearchContext
from sandbox.mechanism import Config, Knob, KnobValue, Space, Trial

NO_TRAINING = ("constraint", "no_candidate", "mechanism", "infrastructure")


@dataclass(kw_only=True)
class Moves:
    """Per knob: how often it was tried, kept, not kept, and in which directions."""

    tried: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    directions: dict[str, frozenset[str]] = field(default_factory=dict)


def movable(space: Space) -> list[str]:
    """Knobs that have more than one value: a locked one is no choice."""
    return [name for name, knob in space.items() if knob.at(0.0) != knob.at(1.0)]


def direction(knob: Knob, old: KnobValue, new: KnobValue) -> str:
    """`up`, `down`, or `to VALUE` for a choice."""
    if knob.kind == "choice":
        return f"to {new}"
    return "up" if knob.position(new) > knob.position(old) else "down"


def bases(trace: Sequence[Trial]) -> list[Config]:
    """For each trial, the configuration that was best when it was proposed."""
    found: list[Config] = []
    base: Config = trace[0].config if trace else {}
    for trial in trace:
        found.append(base)
        if trial.status == "kept":
            base = trial.config
    return found


def moves_of(trace: Sequence[Trial], space: Space, *, last: int | None = None) -> Moves:
    """The moves of the last `last` trials (all without it); the baseline makes none."""
    moves = Moves()
    first = 1 if last is None else max(1, len(trace) - last)
    for trial, base in list(zip(trace, bases(trace), strict=True))[first:]:
        for name, new in trial.changes.items():
            knob, old = space.get(name), base.get(name)
            if knob is None or old is None or new == old or knob.problem(new) is not None:
                continue
            moves.tried[name] += 1
            (moves.kept if trial.status == "kept" else moves.failures)[name] += 1
            seen = moves.directions.get(name, frozenset())
            moves.directions[name] = seen | {direction(knob, old, new)}
    return moves


def diagnose(context: ResearchContext) -> dict[str, Any]:
    """The diagnosis as plain JSON data; floats are rounded, so that it reads well."""
    trace, space = context.trace, context.space
    trials = [t for t in trace if t.number > 0]
    moves = moves_of(trace, space)
    names = movable(space)
    free = [name for name in names if name not in context.frozen]
    first, best = (trace[0].metric if trace else None), context.best.metric
    gain = (
        None
        if first is None or best is None
        else (first - best if context.minimize else best - first)
    )
    return {
        "trials": len(trials),
        "kept": sum(t.status == "kept" for t in trials),
        "discarded": sum(t.status == "discarded" for t in trials),
        "failed": sum(t.status == "failed" for t in trials),
        "failure_share": _share(sum(t.status == "failed" for t in trials), len(trials)),
        "failures": dict(sorted(Counter(t.failure for t in trials if t.failure).items())),
        "not_trained": sum(t.failure in NO_TRAINING for t in trials),
        "longest_streak_without_progress": _longest_streak(trials),
        "best_age": sum(t.number > context.best.number for t in trials),
        "repeats": _repeats(trace),
        "baseline": _rounded(first),
        "best": _rounded(best),
        "gain": _rounded(gain),
        "gain_in_sigma": _rounded(gain / context.sigma if gain and context.sigma else None),
        "knobs": len(names),
        "frozen": sorted(context.frozen),
        "never_tried": [name for name in free if not moves.tried[name]],
        "one_direction_only": one_direction_only(moves, space, free),
        "most_tried": _most_tried(moves, len(trials)),
        "moves_repeated_in_vain": sum(n - 1 for n in _vain_moves(trace, space).values() if n > 1),
        "live_mechanism": context.mechanism_name,
    }


def one_direction_only(moves: Moves, space: Space, names: Sequence[str]) -> dict[str, str]:
    """Knobs tried in vain in one direction alone, with that direction."""
    found = {}
    for name in names:
        directions = moves.directions.get(name, frozenset())
        if space[name].kind != "choice" and len(directions) == 1 and not moves.kept[name]:
            found[name] = next(iter(directions))
    return found


def _vain_moves(trace: Sequence[Trial], space: Space) -> Counter[tuple[str, str]]:
    """How often each move was made without being kept, since it was last kept."""
    counts: Counter[tuple[str, str]] = Counter()
    for trial, base in list(zip(trace, bases(trace), strict=True))[1:]:
        for name, new in trial.changes.items():
            knob, old = space.get(name), base.get(name)
            if knob is None or old is None or new == old or knob.problem(new) is not None:
                continue
            move = (name, direction(knob, old, new))
            counts[move] = 0 if trial.status == "kept" else counts[move] + 1
    return counts


def _repeats(trace: Sequence[Trial]) -> int:
    """Trials of a configuration that had been tried before."""
    counts = Counter(repr(sorted(t.config.items())) for t in trace)
    return sum(n - 1 for n in counts.values())


def _longest_streak(trials: Sequence[Trial]) -> int:
    longest = streak = 0
    for trial in trials:
        streak = 0 if trial.status == "kept" else streak + 1
        longest = max(longest, streak)
    return longest


def _most_tried(moves: Moves, trials: int) -> Mapping[str, Any]:
    if not moves.tried:
        return {}
    name, count = min(moves.tried.items(), key=lambda item: (-item[1], item[0]))
    return {"knob": name, "times": count, "kept": moves.kept[name], "share": _share(count, trials)}


def _share(part: int, whole: int) -> float:
    return round(part / whole, 3) if whole else 0.0


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
