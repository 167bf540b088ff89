"""YAML as people mean it, and nothing else: bounded, safe, without doubles, with line numbers.

On top of PyYAML's safe loader: duplicate keys, anchors, tags and deep nesting are refused; only
`true` and `false` are booleans (`no` is a word), `1e-3` is a number (YAML 1.1 says text), and
dates are text. What is wrong is told with its line. It knows no task.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from runner.tasks.base import TaskError

MAX_BYTES = 128 * 1024
MAX_DEPTH = 12
MAX_PROBLEMS = 5

_NO_TEXT = re.compile("[\0\ud800-\udfff]")  # what no program can be given

Path_ = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """The safe loader with the plain types of YAML 1.2."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - as in the class above it


_TYPES = (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?[0-9]+$", list("-+0123456789")),
    (
        "float",
        r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$",
        list("-+.0123456789"),
    ),
)
for _name, _pattern, _first in _TYPES:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(_pattern), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _loader, node: int(node.value))
_Loader.add_constructor("tag:yaml.org,2002:float", lambda _loader, node: float(node.value))


_OPENS = (
    yaml.FlowSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.BlockMappingStartToken,
)
_CLOSES = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)


class Lines:
    """Where each part of a file stands, to say so when it is wrong."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._lines: dict[Path_, int] = {(): 1}

    def set(self, path: Path_, line: int) -> None:
        """Remember the line (from 1) of a part."""
        self._lines[path] = line

    def of(self, path: Path_) -> int:
        """The line of `path`, or of the nearest part around it."""
        return next(
            self._lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self._lines
        )

    def error(self, path: Path_, message: str) -> TaskError:
        """A TaskError that names the line of `path`."""
        where = ".".join(str(part) for part in path)
        return TaskError(
            f"{self.what}, line {self.of(path)}: {where + ': ' if where else ''}{message}"
        )


def load(path: Path, model: type[Model]) -> tuple[Model, Lines]:
    """Read a file into `model`. Raises TaskError with the line of what is wrong."""
    lines = Lines(str(path))
    data = _plain(_read(path), lines)
    if not isinstance(data, dict):
        raise lines.error((), f"this is {_called(data)}, no mapping of names to values")
    try:
        return model.model_validate(data), lines
    except ValidationError as error:
        wrong: dict[Path_, str] = {}
        problems = error.errors()
        for problem in problems:
            no_text = problem["type"] == "string_type" and isinstance(problem["input"], dict)
            if no_text and len(problems) > 1:
                continue  # of two forms this is the other one, whose own problems are told
            place = _inner(problem["loc"], lines, missing=problem["type"] == "missing")
            why = _WORDS.get(problem["type"], problem["msg"])
            if problem["type"] in ("extra_forbidden", "model_type"):
                why += ", ".join(_keys(model, problem["loc"]))
            same = wrong.get(place, why) == why
            wrong[place] = why if same else f"{wrong[place]}; or: {why}"
        found = [str(lines.error(place, why)) for place, why in list(wrong.items())[:MAX_PROBLEMS]]
        raise TaskError("; ".join(found) or lines.error((), str(error))) from None


_WORDS = {
    "extra_forbidden": "there is no such key here; there are ",
    "model_type": "write it as `{KEY: VALUE}`, with keys of ",
    "dict_type": "write it as `{NAME: VALUE}`",
    "list_type": "write a list, such as `[A, B]`",
    "missing": "it must be given",
    "string_type": "this is no text: put it in quotes",
    "int_type": "write a plain number",
    "float_type": "write a plain number",
    "finite_number": "write a plain number",
}


def _keys(model: type[BaseModel], path: Path_) -> list[str]:
    """The keys of the part of a model at this path."""
    for part in path:
        field = model.model_fields.get(part) if isinstance(part, str) else None
        model = next(_models(field.annotation), model) if field else model
    return list(model.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _models(part)


def _inner(path: Path_, lines: Lines, *, missing: bool) -> Path_:
    """A model's path without the parts that are the names of alternatives of a type."""
    known: Path_ = ()
    for part in path:
        if (*known, part) in lines._lines or (missing and part is path[-1]):
            known = (*known, part)
    return known


def _read(path: Path) -> str:
    try:
        if not path.is_file():
            raise TaskError(f"{path} is not a file: give --config the file with the space")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise TaskError(f"{path} can't be read: {error}") from None
    if len(data) > MAX_BYTES:
        raise TaskError(f"{path}, line 1: it has over {MAX_BYTES} bytes: a space is a page")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TaskError(f"{path}, line {line}: not UTF-8: save it as UTF-8") from None


def _plain(text: str, lines: Lines) -> Any:
    """The file as plain values, its lines remembered."""
    try:
        depth = 0
        for token in yaml.scan(text, Loader=_Loader):
            line = token.start_mark.line + 1
            if isinstance(token, yaml.AnchorToken | yaml.AliasToken | yaml.TagToken):
                raise TaskError(f"{lines.what}, line {line}: anchors and tags are not read")
            depth += isinstance(token, _OPENS) - isinstance(token, _CLOSES)
            if depth > MAX_DEPTH:  # deep flows take the scanner quadratic time
                raise TaskError(f"{lines.what}, line {line}: nested too deeply")
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            return None if node is None else _value(loader, node, (), lines)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line = mark.line + 1 if mark else text.count("\n", 0, getattr(error, "position", 0)) + 1
        why = getattr(error, "problem", None) or getattr(error, "reason", None) or "no YAML"
        raise TaskError(f"{lines.what}, line {line}: {why}") from None
    except RecursionError:
        raise TaskError(f"{lines.what}, line 1: nested too deeply") from None
    except ValueError as error:
        if isinstance(error, TaskError):
            raise
        raise TaskError(f"{lines.what}: a number that can't be read: {error}") from None


def _value(loader: _Loader, node: Node, path: Path_, lines: Lines) -> Any:
    lines.set(path, node.start_mark.line + 1)
    if isinstance(node, ScalarNode) and _NO_TEXT.search(node.value):
        raise lines.error(path, "a null byte, or half of a character, is no text")
    if isinstance(node, SequenceNode):
        return [_value(loader, n, (*path, i), lines) for i, n in enumerate(node.value)]
    if isinstance(node, MappingNode):
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, ScalarNode) else None
            line = key_node.start_mark.line + 1
            if not isinstance(key, str) or not key or _NO_TEXT.search(key):
                raise TaskError(f"{lines.what}, line {line}: a key must be a word")
            if key in found:
                first = lines.of((*path, key))
                raise TaskError(
                    f"{lines.what}, line {line}: {key!r} is there twice, first in line {first}"
                )
            found[key] = _value(loader, value_node, (*path, key), lines)
            lines.set((*path, key), line)
        return found
    return loader.construct_object(node)


def _called(data: object) -> str:
    return "empty" if data is None else f"a {type(data).__name__}"
