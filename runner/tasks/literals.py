"""Values of constant expressions in a syntax tree: `2**17`, `-1e-3`, `4 * 1024`, `A // 2`.

A small evaluator with limits, because nobody executes a foreign script only to read it. It knows
numbers, booleans, strings, arithmetic, comparisons and a handful of harmless functions; everything
else is `Unknown`. It is no interpreter: no names but the given ones, no calls but those below.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Value = float | int | str | bool | tuple[Any, ...]

MAX_BITS = 4096
MAX_DEPTH = 60
MAX_TEXT = 10_000


class Unknown(ValueError):
    """The expression is none that can be known without running the script."""


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
    ast.Invert: operator.invert,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_CALLS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "float": float,
    "int": int,
    "len": len,
    "max": max,
    "min": min,
    "round": round,
    "set": tuple,
    "all": all,
    "any": any,
    "sum": sum,
}


def evaluate(node: ast.expr, names: Mapping[str, Value] | None = None, *, depth: int = 0) -> Value:
    """The value of `node`, where `names` are known. Raises Unknown for anything else."""
    if depth > MAX_DEPTH:
        raise Unknown("nested too deeply")
    try:
        return _bounded(_evaluate(node, names or {}, depth + 1))
    except Unknown:
        raise
    except (ArithmeticError, TypeError, ValueError, IndexError, KeyError, MemoryError) as error:
        raise Unknown(f"{type(error).__name__}: {error}") from error


def _bounded(value: Any) -> Value:
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise Unknown("a number that is too large")
    if isinstance(value, float) and math.isnan(value):
        raise Unknown("nan equals nothing")
    if isinstance(value, (str, tuple)) and len(value) > MAX_TEXT:
        raise Unknown("too long")
    if isinstance(value, (int, float, str, tuple)):
        return value
    raise Unknown(f"a {type(value).__name__}")


def _evaluate(node: ast.expr, names: Mapping[str, Value], depth: int) -> Any:
    def part(child: ast.expr) -> Any:
        return evaluate(child, names, depth=depth)

    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
            return tuple(part(e) for e in elements)
        case ast.UnaryOp(op=op, operand=operand):
            return _UNARY[type(op)](part(operand))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _binary(op, part(left), part(right))
        case ast.BoolOp(op=op, values=values):
            return _first(map(part, values), until=isinstance(op, ast.Or))
        case ast.Compare(left=left, ops=ops, comparators=others):
            return _compare(part(left), ops, [part(o) for o in others])
        case ast.Subscript(value=value, slice=index) if not isinstance(index, ast.Slice):
            return part(value)[part(index)]
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return part(body) if part(test) else part(orelse)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _CALLS:
            return _CALLS[name](*(part(a) for a in args))
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="math"), attr=name), args=args, keywords=[]
        ) if name in ("sqrt", "ceil", "floor", "log2", "gcd", "prod", "log"):
            return getattr(math, name)(*(part(a) for a in args))
    raise Unknown(_why(node))


def _first(values: Iterable[Value], *, until: bool) -> Any:
    """What `or` (until one is true) and `and` (until one is false) give."""
    value: Any = None
    for value in values:
        if bool(value) is until:
            break
    return value


def _why(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return f"it depends on {name}"
        case ast.Call(func=function):
            return f"it calls {ast.unparse(function)[:60]}"
    return f"{type(node).__name__} is not constant"


def _binary(op: ast.operator, left: Any, right: Any) -> Any:
    if not isinstance(left, (int, float)) or not isinstance(right, (int, float)):
        if not (type(left) is type(right) and isinstance(op, ast.Add)):
            raise Unknown("arithmetic on what is no number")
        return left + right
    if isinstance(op, ast.Pow | ast.LShift):
        if isinstance(right, (int, float)) and abs(right) > MAX_BITS:
            raise Unknown("a number that is too large")
        if isinstance(left, int) and isinstance(op, ast.Pow) and isinstance(right, int):
            bits = max(1, left.bit_length()) * max(1, right)
            if bits > MAX_BITS:
                raise Unknown("a number that is too large")
    return _BINARY[type(op)](left, right)


def _compare(left: Any, ops: list[ast.cmpop], others: list[Any]) -> bool:
    for op, right in zip(ops, others, strict=True):
        if type(op) not in _COMPARE:
            raise Unknown(f"{type(op).__name__} is not constant")
        if not _COMPARE[type(op)](left, right):
            return False
        left = right
    return True
