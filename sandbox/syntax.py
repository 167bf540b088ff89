"""Reading untrusted Python without running it: bytes to a syntax tree, with limits.

Nothing here judges what the code says; it makes sure that what we read is what Python would run
(UTF-8 and nothing else) and that no nesting can exhaust whoever walks the tree afterwards.
"""

from __future__ import annotations

import ast
import functools
import re
import threading
import warnings

from sandbox.report import DraftError

MAX_DEPTH = 120
MAX_NODES = 60_000
COOKIE = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")  # as PEP 263 has it
UTF8_NAMES = ("utf-8", "utf8", "utf_8")
# Python 3.11 counts the depth of a tree in one place for all threads, and fails where two parse at
# once (SystemError, "recursion depth mismatch"); `catch_warnings` is for one thread as well.
_parser = threading.Lock()


def tree_of(source: str | bytes, *, filename: str = "<unknown>") -> ast.Module:
    """`ast.parse`, with its errors, for one thread at a time: nothing else here calls that."""
    with _parser, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source, filename=filename)


def expression_of(text: str) -> ast.expr:
    """The same for one expression."""
    with _parser, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text, mode="eval").body


def encoding_cookie(data: bytes) -> str | None:
    """The encoding that the first two lines declare, where it is another one than UTF-8."""
    for line in data.splitlines()[:2]:
        found = COOKIE.match(line)
        if found and found[1].decode("ascii", "replace").lower() not in UTF8_NAMES:
            return found[1].decode("ascii", "replace")
    return None


def decode(path: str, data: bytes) -> str:
    """The text of a file, or DraftError `not_utf8`."""
    if cookie := encoding_cookie(data):
        raise DraftError(
            "not_utf8",
            f"{path} declares the encoding {cookie!r}: what a reviewer reads would not be what "
            "runs. Remove the declaration; files are UTF-8.",
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DraftError(
            "not_utf8", f"{path} is not UTF-8 (line {line}): save it as UTF-8."
        ) from None


@functools.lru_cache(maxsize=4)
def parse(path: str, data: bytes) -> ast.Module:
    """As `parse_anew`, for those who only read: the checks of one draft share its trees."""
    return parse_anew(path, data)


def parse_anew(path: str, data: bytes) -> ast.Module:
    """The syntax tree of a file; DraftError `not_utf8`, `syntax_error` or `deeply_nested`."""
    text = decode(path, data)
    try:
        tree = tree_of(text, filename=path)
    except SyntaxError as error:
        if "too many nested" in str(error.msg) or "too many levels" in str(error.msg):
            raise _nested(path) from None
        raise DraftError(
            "syntax_error", f"{path} is not Python: {error.msg} (line {error.lineno or 0})."
        ) from None
    except ValueError as error:
        raise DraftError("syntax_error", f"{path} is not Python: {error}.") from None
    except (RecursionError, MemoryError):
        raise _nested(path) from None
    _limit_depth(path, tree)
    return tree


def _nested(path: str) -> DraftError:
    return DraftError(
        "deeply_nested",
        f"{path} is nested deeper than {MAX_DEPTH} levels or has over {MAX_NODES} parts: nobody "
        "can review it. Write it flat.",
    )


def _limit_depth(path: str, tree: ast.AST) -> None:
    stack: list[tuple[ast.AST, int]] = [(tree, 0)]
    nodes = 0
    while stack:
        node, depth = stack.pop()
        nodes += 1
        if depth > MAX_DEPTH or nodes > MAX_NODES:
            raise _nested(path)
        stack.extend((child, depth + 1) for child in ast.iter_child_nodes(node))


def is_literal(node: ast.expr) -> bool:
    """Whether `node` is a number, string, boolean, or a tuple or list of those."""
    if isinstance(node, (ast.Tuple, ast.List)):
        return all(is_literal(part) for part in node.elts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        return _is_number(node.operand)
    return isinstance(node, ast.Constant) and type(node.value) in (int, float, str, bool)


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def literal_kind(node: ast.expr) -> str:
    """`number`, `text`, `truth` or `sequence`: what a parameter's value may be replaced with."""
    if isinstance(node, (ast.Tuple, ast.List)):
        kinds = sorted({literal_kind(part) for part in node.elts})
        return f"{type(node).__name__} of {', '.join(kinds)}"
    if isinstance(node, ast.Constant) and type(node.value) is str:
        return "text"
    if isinstance(node, ast.Constant) and type(node.value) is bool:
        return "truth"
    return "number"
