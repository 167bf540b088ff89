"""What to do with a script that has no constant to search: where its numbers are, what to write.

Words for people alone: nothing here decides what is searched.
"""

from __future__ import annotations

import ast
import contextlib
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from runner.tasks.base import TaskError
from runner.tasks.constants import MAX_SCRIPT_BYTES, Source, read
from runner.tasks.inference import LeftAlone, infer
from runner.tasks.literals import Unknown, evaluate
from runner.tasks.scope import UPPER, assignments
from runner.tasks.spacefile import NAME

MAX_NAMED = 10
MAX_LINE = 30


def nothing_to_search(source: Source, left: Mapping[str, str], *, folder: Path, script: str) -> str:
    """Why there is no knob, and the way out that fits this `script` of `folder`."""
    told = "; ".join(f"{name}: {why}" for name, why in list(left.items())[:MAX_NAMED])
    return (
        "the script has no constant to search: knobs are names in upper case at its top, bound "
        f"once to a number, a word or a tuple of numbers. {_way_out(source, folder, script)}"
        f"{' Left alone: ' + told if told else ''}"
    )


def _way_out(source: Source, folder: Path, script: str) -> str:
    lower = list(_lower_case(source))[:MAX_LINE]
    if lower:
        lines = ", ".join(f"{name}: {{}}" for name in lower)
        return (
            "It has some in lower case, in a dict or in a class; in a space.yaml beside the "
            "script, this line names them, with the bounds that are guessed: "
            f"`knobs: {{{lines}}}`"
        )
    if any(_adds_argument(node) for node in ast.walk(source.tree)):
        known = list(_arguments(source.tree))[:MAX_LINE]
        words = ", ".join(f"'{flag}={{{name}}}'" for flag, name, _ in known)
        lines = ", ".join(f"{name}: {knob}" for _, name, knob in known)
        return (
            "Its numbers are arguments of its command line: use the command task, with a YAML "
            f"file beside it that says `command: [python, {script}, {words or '...'}]`, "
            f"`metric: val_bpb` (or what it prints) and `knobs: {{{lines or '...'}}}`"
        )
    fields = [name for node in source.tree.body for name in _fields(node)]
    if fields:
        return (
            f"It has numbers within classes ({', '.join(fields[:MAX_NAMED])}): bind them to names "
            "in upper case at the top of the script, and use those"
        )
    for name in _imported(source, folder, script):
        run = shlex.join([sys.executable, script])
        return (
            f"It imports {name}, which has some: `--script {shlex.quote(name)} --command "
            f"{shlex.quote(run)}` searches those"
        )
    if inner := list(dict.fromkeys(_in_functions(source.tree)))[:MAX_NAMED]:
        return (
            f"It has numbers within functions ({', '.join(inner)}): bind them to names in upper "
            "case at the top of the script, and use those there"
        )
    return "Bind some there, or use the command task."


def _in_functions(tree: ast.Module) -> Iterator[str]:
    """NAME = NUMBER within functions, and their arguments' defaults."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        arguments = [*node.args.posonlyargs, *node.args.args]
        defaults = [None] * (len(arguments) - len(node.args.defaults)) + node.args.defaults
        given = [*zip(arguments, defaults, strict=True)]
        given += zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        yield from (f"{node.name}: {argument.arg}" for argument, value in given if _number(value))
        for name, value in assignments(ast.Module(body=node.body, type_ignores=[])):
            if _number(value):
                yield f"{node.name}: {name}"


def _number(node: ast.expr | None) -> bool:
    try:
        value = evaluate(node) if node is not None else ""
    except Unknown:
        return False
    return isinstance(value, int | float) and not isinstance(value, bool)


def _imported(source: Source, folder: Path, script: str) -> Iterator[str]:
    """Files beside the script that it imports and that have constants to search."""
    for node in ast.walk(source.tree):
        match node:
            case ast.ImportFrom(module=str(module), level=0 | 1):
                modules = [module]
            case ast.Import(names=names):
                modules = [name.name for name in names]
            case _:
                continue
        for module in modules:
            path = Path(script).parent / f"{module.replace('.', '/')}.py"
            if _has_constants(folder / path):
                yield path.as_posix()


def _has_constants(path: Path) -> bool:
    try:
        if not path.is_file() or path.stat().st_size > MAX_SCRIPT_BYTES:
            return False
        found = read(path.read_bytes(), what=path.name, alone=False)
    except (OSError, TaskError):
        return False
    return any(_has_bounds(name, found) for name in found.slots if UPPER.match(name)) or any(
        _lower_case(found)
    )


def _lower_case(source: Source) -> Iterator[str]:
    """Constants in lower case that have bounds as soon as they are named."""
    for name, slot in source.slots.items():
        if UPPER.match(slot.constant):
            continue
        if re.match(NAME, name) and _has_bounds(name, source):
            yield name


def _has_bounds(name: str, source: Source) -> bool:
    try:
        infer(source.slots[name], source)
    except LeftAlone:
        return False
    return True


def _adds_argument(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(attr="add_argument"), args=[ast.Constant(str(name)), *_]):
            return name.startswith("-")
    return False


def _arguments(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """Each argument `--NAME` with a number as its default, its name and its knob as YAML."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(args=[ast.Constant(str(flag)), *_], keywords=words) if _adds_argument(
                node
            ) and flag.startswith("--"):
                name = flag.removeprefix("--").replace("-", "_")
                given = {word.arg: word.value for word in words}.get("default")
                if not (name.isidentifier() and re.match(NAME, name) and _number(given)):
                    continue
                assert given is not None  # noqa: S101 - for the type checker
                line = f"{name} = {ast.unparse(given)}\nprint({name})\n"
                found = read(line.encode(), what=flag)
                with contextlib.suppress(LeftAlone):
                    knob = infer(found.slots[name], found)
                    log = ", log: true" if knob.log else ""
                    yield (
                        flag,
                        name,
                        f"{{kind: {knob.kind}, low: {knob.low!r}, high: {knob.high!r}{log}, "
                        f"default: {knob.default!r}}}",
                    )


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
