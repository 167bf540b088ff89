"""What to do with a script that has no constant to search: where its numbers are, what to write.

Words for people alone: nothing here decides what is searched.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from runner.tasks.constants import Source
from runner.tasks.inference import LeftAlone, infer
from runner.tasks.scope import UPPER

MAX_NAMED = 10


def nothing_to_search(source: Source, left: Mapping[str, str]) -> str:
    """Why there is no knob, and the way out that fits this script."""
    told = "; ".join(f"{name}: {why}" for name, why in list(left.items())[:MAX_NAMED])
    return (
        "the script has no constant to search: knobs are names in upper case at its top, bound "
        f"once to a number, a word or a tuple of numbers. {_way_out(source)}"
        f"{' Left alone: ' + told if told else ''}"
    )


def _way_out(source: Source) -> str:
    lower = list(_lower_case(source))[:MAX_NAMED]
    if lower:
        lines = ", ".join(f"{name}: {{}}" for name in lower)
        return (
            "It has some in lower case, in a dict or in a class; in a space.yaml beside the "
            "script, this line names them, with the bounds that are guessed: "
            f"`knobs: {{{lines}}}`"
        )
    if any(_adds_argument(node) for node in ast.walk(source.tree)):
        return (
            "Its numbers are arguments of its command line: use the command task, with a YAML "
            "file that says `command: [python, SCRIPT, --lr, '{LR}']` and `knobs: {LR: {low: "
            "..., high: ...}}`"
        )
    fields = [name for node in source.tree.body for name in _fields(node)]
    if fields:
        return (
            f"It has numbers within classes ({', '.join(fields[:MAX_NAMED])}): bind them to names "
            "in upper case at the top of the script, and use those"
        )
    return "Name some in a space.yaml, or use the command task."


def _lower_case(source: Source) -> Iterator[str]:
    """Constants in lower case that have bounds as soon as they are named."""
    for name, slot in source.slots.items():
        if UPPER.match(slot.constant):
            continue
        try:
            infer(slot, source)
        except LeftAlone:
            continue
        yield name


def _adds_argument(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(attr="add_argument"), args=[ast.Constant(str(name)), *_]):
            return name.startswith("-")
    return False


def _fields(node: ast.stmt) -> Iterator[str]:
    """CLASS.FIELD of each number that a class at the top of the script has."""
    if not isinstance(node, ast.ClassDef):
        return
    for part in node.body:
        match part:
            case (
                ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=int() | float()))
                | ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=int() | float()))
            ):
                yield f"{node.name}.{name}"
