"""Variants of an approved operator: other values for its parameters, a new name, nothing else.

Parameters are module-level UPPER_CASE literal numbers, found in the syntax tree; their text is
replaced where it stands, so that all else stays byte for byte as it was approved. Which values are
worth trying is not decided here (`runner.levels.catalog`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass

from runner.protocol import LibraryEntry
from sandbox.draft import PARAMETER, mechanism_classes
from sandbox.operators import docstring, note, recognise, renamed, replaced
from sandbox.syntax import tree_of

Number = int | float
VARIANT = re.compile(r"^(.*)_v\d+$")
MAX_NAME = 60


class VariationError(ValueError):
    """An operator that can't be varied as asked; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The text of a variant and of its test."""

    name: str
    source: str
    test: str


def parameters(source: str) -> dict[str, Number]:
    """The operator's numeric parameters, in the order of the file."""
    return {name: _value(node) for name, node in _parameter_nodes(tree_of(source)).items()}


def stem(name: str) -> str:
    """The name without the suffix of a variant: `tabu_v3` is of `tabu`."""
    match = VARIANT.match(name)
    return match[1] if match else name


def fresh_name(operator: str, taken: set[str]) -> str:
    """The first free `operator_vN`, from 2 on."""
    base = stem(operator)[: MAX_NAME - 6]
    return next(n for i in range(2, len(taken) + 3) if (n := f"{base}_v{i}") not in taken)


def vary(entry: LibraryEntry, values: Mapping[str, Number], name: str) -> Variant:
    """`entry` with other parameters under another name; VariationError where that is not all."""
    tree = tree_of(entry.source)
    nodes = _parameter_nodes(tree)
    if unknown := sorted(set(values) - set(nodes)):
        raise VariationError(f"{entry.name} has no parameters {unknown}")
    if all(_value(nodes[key]) == value for key, value in values.items()):
        raise VariationError(f"these are the values that {entry.name} has already")
    edits: list[tuple[ast.expr, str]] = [
        (node, repr(values[key])) for key, node in nodes.items() if key in values
    ]
    edits += [(node, f'"{name}"') for node in _name_nodes(tree)]
    old = {key: _value(node) for key, node in nodes.items()}
    line = note(entry.name, old, {**old, **values})
    source = _with_note(replaced(entry.source.encode(), edits).decode(), line)
    if recognise(source.encode(), {entry.name: entry.source.encode()}) != entry.name:
        raise VariationError(f"the variant of {entry.name} is not recognised as one")
    test = renamed(entry.test.encode(), entry.name, name).decode()
    return Variant(name=name, source=source, test=test)


def _parameter_nodes(tree: ast.Module) -> dict[str, ast.expr]:
    found: dict[str, ast.expr] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target, value = statement.targets[0], statement.value
            if (
                isinstance(target, ast.Name)
                and PARAMETER.fullmatch(target.id)
                and _is_number(value)
            ):
                found[target.id] = value
    return found


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def _value(node: ast.expr) -> Number:
    value: Number = ast.literal_eval(node)
    return value


def _name_nodes(tree: ast.Module) -> list[ast.expr]:
    """The value of the class attribute `name` of the mechanism."""
    return [
        statement.value
        for cls in mechanism_classes(tree)
        for statement in cls.body
        if isinstance(statement, ast.Assign)
        and any(isinstance(t, ast.Name) and t.id == "name" for t in statement.targets)
    ]


def _with_note(source: str, line: str) -> str:
    """A line in the module's docstring that says what the variant varies."""
    tree = tree_of(source)
    first = tree.body[0] if tree.body else None
    text = ast.get_docstring(tree)
    if text is None or not isinstance(first, ast.Expr):
        return f"{docstring('', line)}\n\n{source}"
    return replaced(source.encode(), [(first.value, docstring(text, line))]).decode()
