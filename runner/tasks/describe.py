"""Tasks in words: the list of all kinds, and the space of one before anything is run."""

from __future__ import annotations

from collections.abc import Mapping

from runner.interfaces import Task
from runner.tasks import TaskKind
from sandbox.mechanism import Knob


def of_kinds(kinds: Mapping[str, TaskKind]) -> list[str]:
    """Every kind with the options that it takes or needs."""
    lines = []
    for name, kind in kinds.items():
        lines.append(f"{name:<10} {kind.about}")
        lines += [f"    {line}" for line in kind.help_lines()]
    return lines


def of_task(task: Task) -> list[str]:
    """One task: what it measures, its knobs and constraints, and what it leaves alone and why."""
    better = "lower" if task.minimize else "higher"
    lines = [task.description, f"metric: {task.metric}, {better} is better", "knobs:"]
    lines += [f"    {name}: {_knob(knob)}" for name, knob in task.space.items()]
    for rule in task.space.constraints:
        times = f" x {rule.factor}" if rule.factor != 1 else ""
        lines.append(f"constraint: {rule.name} is a multiple of {rule.of}{times}")
    facts = task.host()
    lines += [f"asserted by the script: {text}" for text in facts.get("rules", [])]
    left = facts.get("left_alone", {})
    lines += [f"left alone: {name}: {why}" for name, why in left.items()]
    return lines


def _knob(knob: Knob) -> str:
    if knob.kind == "choice":
        return f"{knob.default!r} of {', '.join(repr(choice) for choice in knob.choices)}"
    scale = ", log scale" if knob.log else ""
    bounds = (knob.low or 0.0, knob.high or 0.0)
    low, high = (str(int(b)) if b == int(b) else f"{b:g}" for b in bounds)
    return f"{knob.default!r}, {knob.kind} from {low} to {high}{scale}"
