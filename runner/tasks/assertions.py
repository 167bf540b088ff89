"""What a script demands of its constants, read from its assertions instead of by failing trials.

`assert TOTAL_BATCH_SIZE % (DEVICE_BATCH_SIZE * MAX_SEQ_LEN) == 0` becomes a `Constraint` that
mechanisms see; any other assertion over constants alone becomes a `Rule` that is asked before a
trial is spent. Names are followed through assignments and through imports of files beside the
script. An assertion that can't be understood is no rule: the trial itself then tells.
"""

from __future__ import annotations

import ast
import copy
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runner.tasks.base import TaskError
from runner.tasks.constants import MAX_SCRIPT_BYTES, Scalar, Source, read
from runner.tasks.literals import Unknown, Value, evaluate
from sandbox.mechanism import Constraint
from sandbox.syntax import expression_of

MAX_NODES = 400
MAX_DEPTH = 20
MAX_RULES = 100
MAX_MODULES = 20
EXITS = ("sys.exit", "exit", "quit", "os._exit")

Names = Mapping[str, ast.expr]
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One condition on constants; `text` and `line` are the script's own."""

    text: str
    line: int
    condition: ast.expr

    def problem(self, values: Mapping[str, Value]) -> str | None:
        """Why these values of the constants break it, or None (also where it can't be told)."""
        try:
            holds = bool(evaluate(self.condition, values))
        except Unknown:
            return None
        return None if holds else f"line {self.line}: assert {self.text}"


def constants_of(source: Source, config: Mapping[str, Scalar]) -> dict[str, Value]:
    """The values of the constants (tuples put together) for values of their slots."""
    values: dict[str, Value] = {}
    for slot in source.slots.values():
        value = config.get(slot.name, slot.value)
        if slot.part is None:
            values[slot.constant] = value
        else:
            before = values.get(slot.constant, ())
            values[slot.constant] = (*(before if isinstance(before, tuple) else ()), value)
    return values


def rules_of(source: Source, folder: Path) -> list[Rule]:
    """The rules that the script's default values keep; an assertion that they break is not about
    what runs (or the script can't run at all, and says so itself)."""
    outer = {**_imported(source, folder), **source.names}
    constants = {slot.constant for slot in source.slots.values()}
    default = constants_of(source, {})
    found: list[Rule] = []
    for test, functions in _conditions(source):
        local = {name: node for one in functions for name, node in _locals(one).items()}
        for one in _conjuncts(test):
            condition = _followed(one, local, outer, constants)
            if condition is None or len(found) >= MAX_RULES:
                continue
            if _free(condition) and _holds(condition, default):
                found.append(Rule(text=ast.unparse(one), line=one.lineno, condition=condition))
    return found


def _holds(condition: ast.expr, values: Mapping[str, Value]) -> bool:
    try:
        return bool(evaluate(condition, values))
    except Unknown:
        return False


def constraints_of(
    rules: list[Rule], knobs: Collection[str], values: Mapping[str, Value]
) -> tuple[Constraint, ...]:
    """Those rules that say "a knob is a multiple of another knob times a number"; `values` are
    those of the constants that are no knobs."""
    found = []
    for rule in rules:
        match rule.condition:
            case ast.Compare(
                left=ast.BinOp(left=ast.Name(id=whole), op=ast.Mod(), right=right),
                ops=[ast.Eq()],
                comparators=[ast.Constant(0)],
            ):
                factors = _product(right, knobs, values)
            case _:
                continue
        if factors is None or whole not in knobs:
            continue
        parts = [f for f in factors if isinstance(f, str)]
        factor = math.prod(f for f in factors if isinstance(f, int))
        if len(parts) == 1 and parts[0] in knobs and factor > 0 and parts[0] != whole:
            found.append(Constraint(name=whole, of=parts[0], factor=factor))
    return tuple(dict.fromkeys(found))


def _product(
    node: ast.expr, knobs: Collection[str], values: Mapping[str, Value]
) -> list[str | int] | None:
    """The factors of a product of knobs and whole numbers, or None if it is anything else."""
    match node:
        case ast.Name(id=name) if name in knobs:
            return [name]
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            first, second = _product(left, knobs, values), _product(right, knobs, values)
            return None if first is None or second is None else first + second
    fixed = {name: value for name, value in values.items() if name not in knobs}
    try:
        value = evaluate(node, fixed)
    except Unknown:
        return None
    return [value] if isinstance(value, int) and not isinstance(value, bool) else None


def _conditions(source: Source) -> Iterator[tuple[ast.expr, tuple[_Function, ...]]]:
    """What is asserted where nothing decides whether it is: at the top, or in a function that
    somebody names, with those around it; and `if CONDITION: raise` (or `sys.exit(1)`), which is an
    assertion of the opposite."""
    called = _called(source.tree)
    waiting: list[tuple[ast.stmt, tuple[_Function, ...]]]
    waiting = [(statement, ()) for statement in reversed(source.tree.body)]
    while waiting:
        node, functions = waiting.pop()
        match node:
            case ast.Assert(test=test):
                yield test, functions
            case ast.If(test=test, body=[*before, last], orelse=[]) if _ends(before, last):
                yield ast.copy_location(ast.UnaryOp(op=ast.Not(), operand=test), test), functions
            case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
                waiting += [(s, functions) for s in reversed(node.body)]
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                if not source.alone or node.decorator_list or node.name in called:
                    waiting += [(s, (*functions, node)) for s in reversed(node.body)]
            case ast.With() | ast.AsyncWith() | ast.ClassDef():
                waiting += [(s, functions) for s in reversed(node.body)]


def _called(tree: ast.Module) -> set[str]:
    """Names of functions that may be called: what is read anywhere, and methods, which frameworks
    call."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()) | ast.Attribute(attr=name):
                found.add(name)
            case ast.ClassDef(body=body):
                found |= {part.name for part in body if isinstance(part, _Function)}
    return found


def _ends(before: list[ast.stmt], last: ast.stmt) -> bool:
    """Whether these statements say something and end the script with an error; `FAIL` is what an
    exploded loss prints in this family, which is no demand."""
    if not all(isinstance(one, ast.Expr) and "'FAIL'" not in ast.unparse(one) for one in before):
        return False
    match last:
        case ast.Raise():
            return True
        case ast.Expr(value=ast.Call(func=function, args=[ast.Constant(value=code)])):
            return ast.unparse(function) in EXITS and code not in (0, None)
        case ast.Expr(value=ast.Call(func=function, args=[ast.JoinedStr()])):
            return ast.unparse(function) in EXITS
    return False


def _conjuncts(test: ast.expr) -> list[ast.expr]:
    match test:
        case ast.BoolOp(op=ast.And(), values=values):
            return [part for value in values for part in _conjuncts(value)]
        case ast.UnaryOp(
            op=ast.Not(),
            operand=ast.Compare(left=left, ops=[ast.NotEq()], comparators=[right]),
        ):
            equal = ast.Compare(left=left, ops=[ast.Eq()], comparators=[right])
            return [ast.copy_location(equal, test)]
        case ast.UnaryOp(op=ast.Not(), operand=ast.BinOp(op=ast.Mod()) as rest):
            equal = ast.Compare(left=rest, ops=[ast.Eq()], comparators=[ast.Constant(0)])
            return [ast.fix_missing_locations(ast.copy_location(equal, test))]
    return [test]


def _locals(function: _Function) -> dict[str, ast.expr | None]:
    """The names a function binds: their expression if they are bound once, else None."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
    found: dict[str, ast.expr | None] = {a.arg: None for a in every}
    nodes = list(ast.walk(function))
    stores = [n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    times = Counter([*found, *stores])
    found |= dict.fromkeys(stores)
    for node in nodes:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if times[name] == 1:
                found[name] = value
            case ast.Global(names=names):
                for name in names:
                    found[name] = None
    return found


def _followed(
    node: ast.expr,
    local: Mapping[str, ast.expr | None],
    outer: Names,
    constants: set[str],
) -> ast.expr | None:
    """`node` with every name but constants replaced by its expression; None if one is unknown."""
    try:
        return _Follower(local, outer, constants).followed(node, in_function=True)
    except (Unknown, RecursionError):
        return None


class _Follower(ast.NodeTransformer):
    """Replaces names by what they are bound to: in a function (`local`), else at the top (`outer`).
    Raises Unknown for any other name, and over its limits."""

    def __init__(
        self, local: Mapping[str, ast.expr | None], outer: Names, constants: set[str]
    ) -> None:
        self.local, self.outer, self.constants = local, outer, constants
        self._nodes = self._depth = 0
        self._in_function = False  # whether what is visited stands in the function

    def followed(self, part: ast.expr, *, in_function: bool) -> ast.expr:
        if self._depth > MAX_DEPTH:
            raise Unknown("names in a circle")
        before, self._in_function = self._in_function, in_function
        self._depth += 1
        result: ast.expr = self.visit(copy.deepcopy(part))
        self._depth -= 1
        self._in_function = before
        return result

    def generic_visit(self, node: ast.AST) -> ast.AST:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise Unknown("too large")
        return super().generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if self._in_function and node.id in self.local:
            expression = self.local[node.id]
            if expression is None:
                raise Unknown(node.id)
            return self.followed(expression, in_function=True)
        return self._at_the_top(node.id)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        node.args = [self.visit(argument) for argument in node.args]
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return self._at_the_top(ast.unparse(node))

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        text = ast.unparse(node)
        return self._at_the_top(text) if text in self.constants else self.generic_visit(node)

    def _at_the_top(self, name: str) -> ast.expr:
        if name in self.constants:
            return ast.Name(id=name, ctx=ast.Load())
        if name in self.outer:
            return self.followed(self.outer[name], in_function=False)
        raise Unknown(name)


def _free(node: ast.expr) -> bool:
    """Whether a condition depends on a constant at all."""
    return any(isinstance(n, ast.Name) for n in ast.walk(node))


def _imported(script: Source, folder: Path) -> dict[str, ast.expr]:
    """The constants of files beside the script that it imports, under the names it uses."""
    found: dict[str, ast.expr] = {}
    read_files: dict[str, Names] = {}

    def names_of(module: str) -> Names:
        if module not in read_files and len(read_files) < MAX_MODULES:
            read_files[module] = _constants_of_file(folder / f"{module}.py", script)
        return read_files.get(module, {})

    for node in ast.walk(script.tree):
        match node:
            case ast.ImportFrom(module=str(module), names=aliases, level=0 | 1):
                known = names_of(module)
                for alias in aliases:
                    if alias.name == "*":
                        found |= dict(known)
                    elif alias.name in known:
                        found[alias.asname or alias.name] = known[alias.name]
            case ast.Import(names=aliases):
                for alias in aliases:
                    known = names_of(alias.name) if "." not in alias.name else {}
                    found |= {f"{alias.asname or alias.name}.{n}": e for n, e in known.items()}
    return found


def _constants_of_file(path: Path, script: Source) -> Names:
    """The literal constants of a file beside the script; nothing where it can't be read."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_SCRIPT_BYTES:
            return {}
        source = read(path.read_bytes(), what=path.name, environment=script.environment)
    except (OSError, TaskError):
        return {}
    known: dict[str, ast.expr] = {}
    for name, node in source.names.items():
        try:
            value = evaluate(node, {n: evaluate(e) for n, e in known.items()})
            known[name] = expression_of(repr(value))
        except Unknown:
            continue
    return known
