"""Environment variables in a script's constants: `int(os.environ.get("BATCH", "32"))` is 32 in a
trial, because we know what a trial's environment holds.

Replaces such reads by what a trial sees. A variable that the script itself may set (it names it
elsewhere, or loads a `.env` file) or that differs between trials stays as it is written, and so
does one without a default. Nothing is executed.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Mapping

OURS = "ESCAPEMENT_"  # differ between trials
_READS = frozenset({"os.environ.get", "os.getenv", "environ.get", "getenv"})


class Variables:
    """What a script sees of `environment`, the variables of each trial."""

    def __init__(self, tree: ast.Module, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self._named = Counter(
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        )
        self._loads = any(_is_dotenv(node) for node in ast.walk(tree))

    def resolved(self, node: ast.expr) -> ast.expr:
        """`node` with what is known of the environment put in; the same object where nothing is."""
        if self._loads or not any(self._read(part) for part in ast.walk(node)):
            return node
        put_in = _PutIn(self)
        changed: ast.expr = put_in.visit(copy.deepcopy(node))
        return changed

    def _read(self, node: ast.AST) -> ast.expr | None:
        """What a read of a variable gives, or None if it is none, or can't be known."""
        match node:
            case ast.Call(
                func=ast.Attribute() | ast.Name() as function,
                args=[ast.Constant(value=str(name)), default],
                keywords=[],
            ) if ast.unparse(function) in _READS:
                if name.startswith(OURS) or self._named[name] > 1:
                    return None
                if name in self.environment:
                    return ast.copy_location(ast.Constant(self.environment[name]), node)
                return default
        return None


class _PutIn(ast.NodeTransformer):
    def __init__(self, variables: Variables) -> None:
        self.variables = variables

    def visit_Call(self, node: ast.Call) -> ast.AST:
        known = self.variables._read(node)
        return self.generic_visit(node) if known is None else self.visit(known)


def _is_dotenv(node: ast.AST) -> bool:
    match node:
        case ast.Import(names=names):
            return any(name.name.partition(".")[0] == "dotenv" for name in names)
        case ast.ImportFrom(module=str(module)):
            return module.partition(".")[0] == "dotenv"
    return False
