"""The top-level constants of a Python script: found by syntax tree, edited byte by byte.

`read` finds what may be a knob: names bound exactly once at the top of the script to a literal, an
expression of literals, or a tuple of them; and literals in a dict or a class there. `edit` replaces
the value expressions of chosen constants and nothing else, and proves it: every other byte is the
same. Nothing is executed here, and no bounds are guessed (`runner.tasks.inference` does that).
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from runner.tasks.base import TaskError
from runner.tasks.literals import Unknown, Value, evaluate
from runner.tasks.scope import Scope, assignments, bindings
from runner.tasks.variables import Variables
from sandbox.syntax import expression_of, tree_of

MAX_SCRIPT_BYTES = 1024 * 1024
MAX_CONSTANTS = 400
MAX_PARTS = 8
MAX_FIELDS = 60  # of a dict or a class
BOM = b"\xef\xbb\xbf"
LINE_END = re.compile(rb"\r\n|\r|\n")

Scalar = float | int | str | bool


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One literal that may be replaced: bytes `start` to `end` of the script, in `line`.

    `name` is the constant's name, NAME_0, NAME_1 ... for the parts of a tuple, NAME_KEY for those
    of a dict and of a call with keywords, CLASS_FIELD for those of a class; `constant` is how the
    script itself calls it, `part` which part of a tuple it is.
    """

    name: str
    constant: str
    value: Scalar
    text: str
    start: int
    end: int
    line: int
    part: int | None = None

    @property
    def word(self) -> str:
        """What says what it is: `lr` for `Config.lr` and `CONFIG['lr']`."""
        return re.split(r"\.|\['", self.constant)[-1].removesuffix("']")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A script: its bytes, its slots by name, and why other constants are left alone.

    `names` holds every top-level name bound once, as its expression, for who reads assertions.
    `environment` is what a trial's environment was said to be; `alone` says that it is run, and
    not imported by what is.
    """

    data: bytes
    tree: ast.Module
    slots: Mapping[str, Slot]
    left_alone: Mapping[str, str]
    names: Mapping[str, ast.expr] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    alone: bool = True


def read(
    data: bytes,
    *,
    what: str,
    environment: Mapping[str, str] | None = None,
    alone: bool = True,
) -> Source:
    """Find the constants of a script that runs in `environment`. Raises TaskError where it can't
    be read; `what` names it. One that others import (not `alone`) need not read its own names."""
    tree = _parse(data, what)
    text = _Text(data, Variables(tree, environment or {}))
    scope = Scope(tree, alone=alone)
    slots: dict[str, Slot] = {}
    left: dict[str, str] = {}
    names: dict[str, ast.expr] = {}
    for name, node in assignments(tree):
        _check_count(len(slots) + len(left), what)
        if node is not None and scope.stays(name):
            names[name] = text.variables.resolved(node)
        why = scope.why_left(name, node)
        if node is None or why:
            left[name] = why
            continue
        try:
            found = _slots_of(name, name, node, text)
        except Unknown as error:
            left[name] = f"its value is not a literal ({error})"
            continue
        taken = scope.bound.keys() | slots.keys()
        if clash := [s.name for s in found if s.name != name and s.name in taken]:
            left[name] = f"the script has a {clash[0]} of its own"
            continue
        slots |= {slot.name: slot for slot in found}
    for name in scope.others():
        if name not in names:
            left.setdefault(name, "it is bound within a block (if, for, try ...), or with others")
    for slot in _in_classes(tree, text, scope.changed):
        if slot.name not in slots and slot.name not in scope.bound:
            slots[slot.name] = slot
    return Source(
        data=data,
        tree=tree,
        slots=slots,
        left_alone=left,
        names=names,
        environment=text.variables.environment,
        alone=alone,
    )


def _check_count(found: int, what: str) -> None:
    if found > MAX_CONSTANTS:
        raise TaskError(
            f"{what} has over {MAX_CONSTANTS} constants at the top: move those that are not to be "
            "searched into a file of their own"
        )


def edit(source: Source, values: Mapping[str, Scalar]) -> bytes:
    """The script with these slots' values; a slot whose value is unchanged keeps its bytes.

    Raises TaskError for an unknown slot, ValueError where the result would differ anywhere else.
    """
    changed: list[tuple[Slot, bytes]] = []
    for name, value in values.items():
        if name not in source.slots:
            raise TaskError(f"the script has no constant {name!r} that can be changed")
        slot = source.slots[name]
        same_type = isinstance(value, bool) is isinstance(slot.value, bool)
        if not same_type or value != slot.value:
            changed.append((slot, literal(value)))
    parts: list[bytes] = []
    done = 0
    for slot, text in sorted(changed, key=lambda c: c[0].start):
        parts += [source.data[done : slot.start], text]
        done = slot.end
    edited = b"".join([*parts, source.data[done:]])
    prove(source, edited, values)
    return edited


def literal(value: Scalar) -> bytes:
    """A value as Python source."""
    return repr(value).encode()


def prove(source: Source, edited: bytes, values: Mapping[str, Scalar]) -> None:
    """Read the edited script again: it has these values, and with the old expressions put back
    it is the old script byte by byte. Raises ValueError."""
    again = read(
        edited, what="the edited script", environment=source.environment, alone=source.alone
    )
    if set(again.slots) != set(source.slots):
        raise ValueError("editing changed which constants there are")
    restored: list[bytes] = []
    done = 0
    for slot in sorted(again.slots.values(), key=lambda s: s.start):
        old = source.slots[slot.name]
        if slot.value != values.get(slot.name, old.value):
            raise ValueError(f"editing gave {slot.name} the value {slot.value!r}")
        restored += [edited[done : slot.start], source.data[old.start : old.end]]
        done = slot.end
    if b"".join([*restored, edited[done:]]) != source.data:
        raise ValueError("editing changed more than the constants' values")


# --- reading ---


def _parse(data: bytes, what: str) -> ast.Module:
    if len(data) > MAX_SCRIPT_BYTES:
        raise TaskError(
            f"{what} has {len(data)} bytes, at most {MAX_SCRIPT_BYTES} are read: move "
            "its data into a file beside it"
        )
    try:
        data.decode("utf-8")
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    except (UnicodeDecodeError, SyntaxError) as error:
        raise TaskError(
            f"{what} is not UTF-8 ({error}): save it as UTF-8, without a coding line"
        ) from None
    if encoding not in ("utf-8", "utf-8-sig") and not data.isascii():
        raise TaskError(
            f"{what} says that it is {encoding}: save it as UTF-8, without a coding line"
        )
    try:
        return tree_of(data.removeprefix(BOM))
    except SyntaxError as error:
        raise TaskError(
            f"{what}, line {error.lineno or 1}: {error.msg}: it is no Python that this "
            "interpreter can read"
        ) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise TaskError(
            f"{what} can't be read as Python: {error or type(error).__name__}"
        ) from None


def _line_starts(data: bytes) -> list[int]:
    """Where each line starts, as Python counts lines."""
    begin = len(BOM) if data.startswith(BOM) else 0
    return [begin, *(match.end() for match in LINE_END.finditer(data))]


class _Text:
    """A script's bytes, where its lines start, and what its environment holds."""

    def __init__(self, data: bytes, variables: Variables) -> None:
        self.data = data
        self.starts = _line_starts(data)
        self.variables = variables

    def slot(self, name: str, constant: str, node: ast.expr, part: int | None = None) -> Slot:
        """The slot of one expression. Raises Unknown."""
        value: Value = evaluate(self.variables.resolved(node))
        if isinstance(value, tuple):
            raise Unknown("a tuple within a tuple")
        assert node.end_lineno is not None and node.end_col_offset is not None  # noqa: S101, PT018
        start = self.starts[node.lineno - 1] + node.col_offset
        end = self.starts[node.end_lineno - 1] + node.end_col_offset
        text = self.data[start:end].decode()
        if ast.dump(expression_of(f"({text}\n)")) != ast.dump(node):
            raise Unknown("its place in the file is unclear")
        return Slot(
            name=name,
            constant=constant,
            value=value,
            text=text,
            start=start,
            end=end,
            line=node.lineno,
            part=part,
        )


def _slots_of(name: str, constant: str, node: ast.expr, text: _Text) -> list[Slot]:
    """The slots of one constant. Raises Unknown."""
    match node:
        case ast.Dict(keys=keys, values=values) if keys:
            fields = [(_text_of(key), value) for key, value in zip(keys, values, strict=True)]
            return _slots_of_fields(name, f"{constant}[{{!r}}]", fields, text)
        case ast.Call(func=ast.Name() | ast.Attribute() as function, args=[], keywords=[_, *_]):
            fields = [(keyword.arg, keyword.value) for keyword in node.keywords]
            is_dict = ast.unparse(function) == "dict"
            called = f"{constant}[{{!r}}]" if is_dict else f"{constant}.{{}}"
            return _slots_of_fields(name, called, fields, text)
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            if not 0 < len(elements) <= MAX_PARTS:
                raise Unknown(f"{len(elements)} parts")
            parts = [text.slot(f"{name}_{i}", constant, e, i) for i, e in enumerate(elements)]
            if any(isinstance(part.value, str) for part in parts):
                raise Unknown("a tuple of text")
            return parts
    return [text.slot(name, constant, node)]


def _text_of(key: ast.expr | None) -> str | None:
    return key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else None


def _slots_of_fields(
    name: str, called: str, fields: list[tuple[str | None, ast.expr]], text: _Text
) -> list[Slot]:
    """Those values of a dict, or of a call with keywords alone, that are literals, under keys that
    are names; `called` is the form of what the script calls them. Raises Unknown."""
    if len(fields) > MAX_FIELDS:
        raise Unknown(f"a dict of {len(fields)} keys")
    found: list[Slot] = []
    keys = [key for key, _ in fields]
    if None in keys:
        raise Unknown("a dict whose keys are no plain text")
    if len(set(keys)) < len(keys):
        raise Unknown("a dict with a key twice")
    for key, value in fields:
        if f"{name}_{key}".isidentifier():
            with contextlib.suppress(Unknown):
                found += _slots_of(f"{name}_{key}", called.format(key), value, text)
    if not found:
        raise Unknown("no literals in it")
    if len({slot.name for slot in found}) < len(found):
        raise Unknown("a dict whose parts have one name")
    return found


def _in_classes(tree: ast.Module, text: _Text, changed: set[str]) -> Iterator[Slot]:
    """FIELD = VALUE or FIELD = field(default=VALUE), bound once in a class at the top."""
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or node.name in changed:
            continue
        body = ast.Module(body=node.body, type_ignores=[])
        times = Counter(bindings(body))
        for name, value in list(assignments(body))[:MAX_FIELDS]:
            if value is not None and times[name] == 1:
                with contextlib.suppress(Unknown):
                    default = _default_of(value)
                    found = _slots_of(f"{node.name}_{name}", f"{node.name}.{name}", default, text)
                    yield from found


def _default_of(value: ast.expr) -> ast.expr:
    """What `field(default=VALUE)` and `Field(VALUE)` of a class's field say, or the value itself.
    Raises Unknown where they say none."""
    match value:
        case ast.Call(func=ast.Name(id="field" | "Field"), args=[first, *_]):
            return first
        case ast.Call(func=ast.Name(id="field" | "Field"), keywords=keywords):
            for keyword in keywords:
                if keyword.arg == "default":
                    return keyword.value
            raise Unknown("a field without a default")
    return value
