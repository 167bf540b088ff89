"""Approved operators: which draft is one of them with other parameters, and nothing else.

A parameter is a module-level UPPER_CASE name with a literal value. A draft *varies* an operator if
its file is the operator's, byte for byte, but for: those values (of the same kind, on one line),
the class attribute `name`, and one line in the module's docstring that says what was varied, in
exactly our words. So comments and docstrings can't carry text that nobody has read, and the syntax
tree is the same up to its literal parameters. Whether the values lie within the bounds that people
set is a second question (`Operator.parameters`).

Nothing is executed, and nothing here says who approved an operator: that is the platform's.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sandbox.draft import NAME, PARAMETER, mechanism_classes
from sandbox.report import DraftError
from sandbox.syntax import is_literal, literal_kind, parse_anew

Number = int | float
Value = int | float | bool | str | tuple[Any, ...]
MAX_VARIED = 40  # parameters of one operator


class OperatorError(ValueError):
    """A file that can't be an operator, or bounds that don't fit; the message says why."""


class Kind(StrEnum):
    """What values a parameter may take."""

    WHOLE = "whole number"
    NUMBER = "number"
    NUMBERS = "numbers"  # a tuple or list of so many numbers as the operator has
    TRUTH = "yes or no"
    FIXED = "fixed"  # a text, or anything else: the operator's own value


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter of an approved operator, with its bounds (both included) if it has any."""

    name: str
    kind: Kind
    value: Value
    low: Number | None = None
    high: Number | None = None

    def problem(self, value: Value) -> str:
        """Why a variant may not have `value`; "": it may."""
        if self.kind is Kind.FIXED:
            same = type(value) is type(self.value) and value == self.value
            return "" if same else f"{self.name} may not be varied"
        if self.kind is Kind.TRUTH:
            return "" if type(value) is bool else f"{self.name} is yes or no"
        if self.kind is not Kind.NUMBERS:
            return self._number_problem(value)
        if not isinstance(value, tuple) or not isinstance(self.value, tuple):
            return f"{self.name} is a list of numbers"
        if len(value) != len(self.value):
            return f"{self.name} has {len(self.value)} values, not {len(value)}"
        return next((p for v in value if (p := self._number_problem(v))), "")

    def _number_problem(self, value: Value) -> str:
        if type(value) not in (int, float) or (self.kind is Kind.WHOLE and type(value) is float):
            return f"{self.name} = {value!r} is no {self.kind}"
        if self.low is None or self.high is None:
            return f"{self.name} has no bounds"
        if not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            return f"{self.name} = {value!r} is outside of {self.low!r} to {self.high!r}"
        return ""


@dataclass(frozen=True, kw_only=True)
class Operator:
    """An approved operator: its exact source, and what may be varied within which bounds."""

    name: str
    source: bytes
    test: bytes
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a draft is beside one operator whose syntax tree it has.

    `problems` is empty exactly if it varies the operator and nothing else, within the bounds.
    """

    operator: str
    values: Mapping[str, Value]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class _Anatomy:
    """A file taken apart: what may differ between an operator and its variants, and the rest."""

    tree: str  # of the syntax tree, up to parameters, docstring and name
    rest: bytes  # of the text, up to the same
    values: dict[str, Value]
    literals: dict[str, bytes]  # of the parameters, as written
    name: bytes  # the class attribute's literal as written, b"" where there is none
    docstring: bytes  # as written, b"" where there is none
    said: str  # what the docstring says


def tree_digest(source: bytes) -> str:
    """SHA-256 of the syntax tree up to its literal parameters. Raises OperatorError."""
    return hashlib.sha256(_taken_apart(source).tree.encode()).hexdigest()


def values_of(source: bytes) -> dict[str, Value]:
    """The parameters of a file, in its order. Raises OperatorError."""
    return dict(_taken_apart(source).values)


def operator_of(
    name: str, source: bytes, test: bytes, bounds: Mapping[str, tuple[Number, Number]]
) -> Operator:
    """An operator from its files; where `bounds` are silent, from half to twice the value.

    Raises OperatorError where the bounds don't fit the file.
    """
    values = values_of(source)
    if len(values) > MAX_VARIED:
        raise OperatorError(f"{name} has {len(values)} parameters; at most {MAX_VARIED}")
    if unknown := sorted(set(bounds) - set(values)):
        raise OperatorError(f"{name} has no parameters {', '.join(unknown)}")
    parameters = tuple(_parameter(key, value, bounds.get(key)) for key, value in values.items())
    return Operator(name=name, source=source, test=test, parameters=parameters)


def _parameter(name: str, value: Value, bounds: tuple[Number, Number] | None) -> Parameter:
    kind = _kind(value)
    if kind in {Kind.FIXED, Kind.TRUTH}:
        if bounds is not None:
            raise OperatorError(f"{name} is no number: it has no bounds")
        return Parameter(name=name, kind=kind, value=value)
    low, high = bounds or suggested(value)
    made = Parameter(name=name, kind=kind, value=value, low=low, high=high)
    if problem := made.problem(value):
        raise OperatorError(f"the operator's own value must lie within its bounds: {problem}")
    return made


def _kind(value: Value) -> Kind:
    if type(value) is bool:
        return Kind.TRUTH
    if type(value) in (int, float):
        return Kind.WHOLE if type(value) is int else Kind.NUMBER
    numbers = isinstance(value, tuple) and all(type(v) in (int, float) for v in value)
    return Kind.NUMBERS if numbers and value else Kind.FIXED


def suggested(value: Value) -> tuple[Number, Number]:
    """Bounds that leave some room: from half to twice a number, and two steps for small ones."""
    if isinstance(value, tuple):
        ends = [suggested(v) for v in value]
        return min(low for low, _ in ends), max(high for _, high in ends)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise OperatorError(f"{value!r} is no number")
    if isinstance(value, int):
        if value < 1:
            return value, value
        return max(1, min(value // 2, value - 2)), max(2 * value, value + 2)
    ends_of = sorted((value / 2, value * 2))
    return ends_of[0], ends_of[1]


# --- comparing -------------------------------------------------------------------------------


def recognise(source: bytes, library: Mapping[str, bytes]) -> str | None:
    """The operator of `library` (name -> source) that `source` varies, whatever its values.

    Anything unreadable is recognised as nothing.
    """
    for name in sorted(library):
        try:
            one, other = _taken_apart(library[name]), _taken_apart(source)
        except OperatorError:
            continue
        if one.tree == other.tree and not _text_problems(name, one, other):
            return name
    return None


def compare(source: bytes, operator: Operator) -> Comparison | None:
    """The draft's file beside an operator; None if its syntax tree is another one."""
    try:
        one, other = _taken_apart(operator.source), _taken_apart(source)
    except OperatorError:
        return None
    if one.tree != other.tree:
        return None
    problems = _text_problems(operator.name, one, other)
    known = {p.name: p for p in operator.parameters}
    for name, value in other.values.items():
        problem = known[name].problem(value) if name in known else f"{name} was never approved"
        problems += [problem] if problem else []
    return Comparison(operator=operator.name, values=other.values, problems=tuple(problems))


def foreign_test(name: str, test: bytes, operator: Operator) -> str:
    """Why a draft's test is not the operator's test for a mechanism called `name`; "": it is."""
    return "" if test == renamed(operator.test, operator.name, name) else "its test is another one"


def renamed(test: bytes, operator: str, name: str) -> bytes:
    """An operator's test, for a variant called `name`."""
    pattern = rf"\bmechanisms\.{re.escape(operator)}\b".encode()
    return re.sub(pattern, f"mechanisms.{name}".encode(), test)


def note(operator: str, old: Mapping[str, Value], new: Mapping[str, Value]) -> str:
    """The line of a variant's docstring, in the order of the file."""
    changed = [f"{key}={new[key]!r} (was {old[key]!r})" for key in old if new[key] != old[key]]
    return f"Variant of {operator}: {', '.join(changed)}."


def docstring(said: str, line: str) -> str:
    """The literal of a variant's docstring: what the operator's says, and the line."""
    if not said:
        return f'"""{line}"""'
    escaped = said.replace("\\", "\\\\").replace('"""', r"\"\"\"")
    return f'"""{escaped}\n\n{line}\n"""'


def _text_problems(operator: str, one: _Anatomy, other: _Anatomy) -> list[str]:
    found = []
    if one.rest != other.rest:
        found.append("comments or layout differ from the approved file")
    for name, literal in other.literals.items():
        if literal != one.literals[name] and (b"\n" in literal or b"#" in literal):
            found.append(f"the value of {name} is not written on one line without comment")
    if other.name != one.name and not re.fullmatch(
        rb"""(["'])%s\1""" % NAME.pattern.encode(), other.name
    ):
        found.append("the attribute `name` is no name")
    written = docstring(one.said, note(operator, one.values, other.values)).encode()
    if other.docstring not in {one.docstring, written}:
        found.append("the docstring differs from the approved file")
    return found


@functools.lru_cache(maxsize=64)
def _taken_apart(source: bytes) -> _Anatomy:
    try:
        tree = parse_anew("mechanism", source)
    except DraftError as error:
        raise OperatorError(str(error)) from error
    marks: list[tuple[ast.expr, str]] = []
    values: dict[str, Value] = {}
    literals: dict[str, bytes] = {}
    doc, said = _docstring_of(tree)
    written = _segment(source, doc) if doc else b""
    if doc is not None:
        marks.append((doc, "\0"))
        del tree.body[0]
    for statement in tree.body:
        if (found := _parameter_of(statement)) is None:
            continue
        name, node = found
        if name in values:
            raise OperatorError(f"{name} is assigned twice: which one is the parameter?")
        values[name], literals[name] = _plain(ast.literal_eval(node)), _segment(source, node)
        marks.append((node, f"\0{literal_kind(node)}\0"))
        _blank(statement, literal_kind(node))
    names = [s for c in mechanism_classes(tree) for s in c.body if _is_name_attribute(s)]
    called = [literal for s in names if (literal := getattr(s, "value", None)) is not None]
    marks += [(literal, "\0name\0") for literal in called]
    name_literal = _segment(source, called[0]) if called else b""
    for statement in names:
        _blank(statement, "name")
    rest = replaced(source, marks)
    if doc is not None:  # an operator without one may get one in a variant
        rest = rest.removeprefix(b"\0").lstrip(b"\n")
    return _Anatomy(
        tree=ast.dump(tree),
        rest=rest,
        values=values,
        literals=literals,
        name=name_literal,
        docstring=written,
        said=said,
    )


def _docstring_of(tree: ast.Module) -> tuple[ast.expr | None, str]:
    if tree.body and isinstance(first := tree.body[0], ast.Expr) and _is_text(first.value):
        return first.value, inspect.cleandoc(str(ast.literal_eval(first.value)))
    return None, ""


def _parameter_of(statement: ast.stmt) -> tuple[str, ast.expr] | None:
    """Name and value of a parameter's assignment."""
    if isinstance(statement, ast.Assign):
        targets: list[ast.expr] = statement.targets
    elif isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    else:
        return None
    target, value = targets[0], statement.value
    if len(targets) != 1 or not isinstance(target, ast.Name) or value is None:
        return None
    if not PARAMETER.fullmatch(target.id) or not is_literal(value):
        return None
    return target.id, value


def _is_name_attribute(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.AnnAssign):
        target: ast.expr = statement.target
    elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
    else:
        return False
    return isinstance(target, ast.Name) and target.id == "name" and _is_text(statement.value)


def _is_text(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is str


def _blank(statement: ast.stmt, word: str) -> None:
    """Put a mark in the place of the statement's value; no source can write this one."""
    statement.value = ast.Constant(value=f"<{word}>", kind="shape")  # type: ignore[attr-defined]


def _plain(value: Any) -> Value:
    return tuple(_plain(v) for v in value) if isinstance(value, (list, tuple)) else value


def _offsets(source: bytes, node: ast.expr) -> tuple[int, int]:
    """Where a node begins and ends; columns count bytes, as in `ast`."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    end_line, end_column = node.end_lineno or node.lineno, node.end_col_offset or 0
    return starts[node.lineno - 1] + node.col_offset, starts[end_line - 1] + end_column


def _segment(source: bytes, node: ast.expr) -> bytes:
    begin, end = _offsets(source, node)
    return source[begin:end]


def replaced(source: bytes, edits: Sequence[tuple[ast.expr, str]]) -> bytes:
    """The source with the text of each node replaced; all else stays byte for byte."""
    spans = sorted(((*_offsets(source, node), text) for node, text in edits), reverse=True)
    for begin, end, text in spans:
        source = source[:begin] + text.encode() + source[end:]
    return source
