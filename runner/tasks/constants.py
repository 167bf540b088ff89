"""The top-level constants of a Python script: found by syntax tree, edited byte by byte.

`read` finds what may be a knob: names in upper case, bound exactly once at the top of the script,
to a literal, an expression of literals, or a tuple of them. `edit` replaces the value expressions
of chosen constants and nothing else, and proves it: every other byte is the same. Nothing is
executed here, and no bounds are guessed (`runner.tasks.inference` does that).
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from runner.tasks.base import TaskError
from runner.tasks.literals import Unknown, Value, evaluate
from sandbox.syntax import expression_of, tree_of

MAX_SCRIPT_BYTES = 1024 * 1024
MAX_CONSTANTS = 400
MAX_PARTS = 8
BOM = b"\xef\xbb\xbf"
UPPER = re.compile(r"^[A-Z][A-Z0-9_]*$")
LINE_END = re.compile(rb"\r\n|\r|\n")
SEES_ALL_NAMES = frozenset({"globals", "locals", "vars", "exec", "eval", "dir"})

Scalar = float | int | str | bool


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One literal that may be replaced: bytes `start` to `end` of the script, in `line`.

    `name` is the constant's name, or NAME_0, NAME_1 ... for the parts of a tuple.
    """

    name: str
    constant: str
    value: Scalar
    text: str
    start: int
    end: int
    line: int


@dataclass(frozen=True, kw_only=True)
class Source:
    """A script: its bytes, its slots by name, and why other constants are left alone.

    `names` holds every top-level name bound once, as its expression, for who reads assertions.
    """

    data: bytes
    tree: ast.Module
    slots: Mapping[str, Slot]
    left_alone: Mapping[str, str]
    names: Mapping[str, ast.expr] = field(default_factory=dict)


def read(data: bytes, *, what: str) -> Source:
    """Find the constants of a script. Raises TaskError where it can't be read; `what` names it."""
    tree = _parse(data, what)
    starts = _line_starts(data)
    bound = Counter(_bindings(tree))
    by_functions = {
        n for node in ast.walk(tree) if isinstance(node, ast.Global) for n in node.names
    }
    read_names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and _loads(n)}
    sees_all = bool(read_names & SEES_ALL_NAMES)
    slots: dict[str, Slot] = {}
    left: dict[str, str] = {}
    names: dict[str, ast.expr] = {}
    for name, node in _assignments(tree):
        if node is not None and bound[name] == 1 and name not in by_functions:
            names[name] = node
        if node is None:
            left[name] = "it shares its value with other names"
        elif bound[name] > 1:
            left[name] = "it is bound more than once"
        elif name in by_functions:
            left[name] = "a function binds it"
        elif name not in read_names and not sees_all:
            left[name] = "nothing reads it"
        else:
            try:
                found = _slots_of(name, node, data, starts)
            except Unknown as error:
                left[name] = f"its value is not a literal ({error})"
                continue
            if clash := [s.name for s in found if s.name != name and (s.name in bound)]:
                left[name] = f"the script has a {clash[0]} of its own"
                continue
            slots |= {slot.name: slot for slot in found}
        if len(slots) + len(left) > MAX_CONSTANTS:
            raise TaskError(
                f"{what} has over {MAX_CONSTANTS} constants at the top: name those to "
                "search in a space.yaml and move the others into a file of their own"
            )
    return Source(data=data, tree=tree, slots=slots, left_alone=left, names=names)


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
    again = read(edited, what="the edited script")
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
        raise TaskError(f"{what} is not UTF-8 ({error}): save it as UTF-8") from None
    if encoding not in ("utf-8", "utf-8-sig") and not data.isascii():
        raise TaskError(f"{what} says that it is {encoding}: save it as UTF-8")
    try:
        return tree_of(data.removeprefix(BOM))
    except SyntaxError as error:
        raise TaskError(
            f"{what}, line {error.lineno}: {error.msg}: it is no Python that this "
            "interpreter can read"
        ) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise TaskError(
            f"{what} can't be read as Python: {error or type(error).__name__}"
        ) from None


def _assignments(tree: ast.Module) -> Iterator[tuple[str, ast.expr | None]]:
    """NAME = VALUE at the top of the script, and at the top of `if __name__ == "__main__"`.

    None stands for a value that several names share.
    """
    for statement in tree.body:
        for one in _main_body(statement) or [statement]:
            match one:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    yield name, value
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    yield name, value
                case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
                    paired = len(targets) == len(values)
                    for i, target in enumerate(targets):
                        if isinstance(target, ast.Name):
                            yield target.id, values[i] if paired else None
                case ast.Assign(targets=targets):
                    yield from ((t.id, None) for t in targets if isinstance(t, ast.Name))


def _main_body(statement: ast.stmt) -> list[ast.stmt]:
    match statement:
        case ast.If(
            test=ast.Compare(
                left=ast.Name(id="__name__"), ops=[ast.Eq()], comparators=[ast.Constant("__main__")]
            ),
            body=body,
        ):
            return body
    return []


def _loads(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Load)


def _bindings(tree: ast.Module) -> Iterator[str]:
    """Every binding of a name in the module's own scope, as often as it is written."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                yield name
            case ast.alias(name=name, asname=asname):
                yield asname or name.partition(".")[0]
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                yield name
            case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                yield name
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
            waiting += node.decorator_list
        elif isinstance(node, ast.Lambda):
            continue
        else:
            waiting += ast.iter_child_nodes(node)


def _line_starts(data: bytes) -> list[int]:
    """Where each line starts, as Python counts lines."""
    begin = len(BOM) if data.startswith(BOM) else 0
    return [begin, *(match.end() for match in LINE_END.finditer(data))]


def _slots_of(name: str, node: ast.expr, data: bytes, starts: list[int]) -> list[Slot]:
    """The slots of one constant. Raises Unknown."""
    if isinstance(node, ast.Tuple | ast.List):
        if not 0 < len(node.elts) <= MAX_PARTS:
            raise Unknown(f"{len(node.elts)} parts")
        parts = [_slot(f"{name}_{i}", name, e, data, starts) for i, e in enumerate(node.elts)]
        if any(isinstance(part.value, str) for part in parts):
            raise Unknown("a tuple of text")
        return parts
    return [_slot(name, name, node, data, starts)]


def _slot(name: str, constant: str, node: ast.expr, data: bytes, starts: list[int]) -> Slot:
    value: Value = evaluate(node)
    if isinstance(value, tuple):
        raise Unknown("a tuple within a tuple")
    assert node.end_lineno is not None and node.end_col_offset is not None  # noqa: S101, PT018
    start = starts[node.lineno - 1] + node.col_offset
    end = starts[node.end_lineno - 1] + node.end_col_offset
    text = data[start:end].decode()
    if ast.dump(expression_of(f"({text}\n)")) != ast.dump(node):
        raise Unknown("its place in the file is unclear")
    return Slot(
        name=name, constant=constant, value=value, text=text, start=start, end=end, line=node.lineno
    )
