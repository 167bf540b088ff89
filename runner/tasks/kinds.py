"""What a kind of task is to the command line: its name, its options, and how it is made of them.

A file in this folder that defines `KIND` is a task; nobody lists them by hand. Options are a small
pydantic model, so that a wrong word is refused with what to write instead. This module knows no
task, and starts nothing.
"""

from __future__ import annotations

import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from runner.interfaces import Task
from runner.tasks.base import ROOT, TaskError

MAX_WORDS = 200
VALUES_SHOWN = {float: "NUMBER", int: "WHOLE NUMBER", Path: "PATH", str: "TEXT"}


class TaskOptions(BaseModel):
    """The options of one kind of task. A field's description is its help; a field without a
    default must be given; its name (or alias) with dashes is the word on the command line."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def _var() -> Path:
    return Path(os.environ.get("ESCAPEMENT_VAR", ROOT / "var"))


@dataclass(frozen=True, kw_only=True)
class Places:
    """Folders a task may write to: `var` for what is prepared once and shared by runs, `out` for
    what belongs to this run (None: nothing is kept)."""

    var: Path = field(default_factory=_var)
    out: Path | None = None


@dataclass(frozen=True, kw_only=True)
class TaskKind:
    """One kind of task. `make` raises TaskError where the options can't be used."""

    name: str
    about: str
    options: type[TaskOptions]
    make: Callable[[Any, Places], Task]

    def parse(self, words: Sequence[str]) -> TaskOptions:
        """The options in words of a command line (`--dir D --budget-seconds=5 --maximize`).

        Raises TaskError for an unknown, doubled, missing or wrong one.
        """
        if len(words) > MAX_WORDS:
            raise TaskError(f"{len(words)} words of options: at most {MAX_WORDS} are read")
        given: dict[str, Any] = {}
        left = list(words)
        while left:
            word, has_value, value = left.pop(0).partition("=")
            name = word.removeprefix("--")
            if name == word or name not in self._fields():
                raise TaskError(f"task {self.name} has no option {word!r}; {self._known()}")
            if name in given:
                raise TaskError(f"--{name} is given twice: which one?")
            if _is_flag(self._fields()[name]):
                if has_value:
                    raise TaskError(f"--{name} takes no value")
                given[name] = True
            elif has_value:
                given[name] = value
            elif left:
                given[name] = left.pop(0)
            else:
                raise TaskError(f"--{name} needs a value")
            if given[name] == "":  # such as a shell's variable that is not set
                raise TaskError(f"--{name} is empty: say what, or leave it out")
        return self.check({name.replace("-", "_"): value for name, value in given.items()})

    def check(self, values: Mapping[str, object]) -> TaskOptions:
        """The options as values by name. Raises TaskError."""
        try:
            return self.options.model_validate(dict(values))
        except ValidationError as error:
            problems = [self._problem(p["loc"], p["msg"], p["type"]) for p in error.errors()]
            raise TaskError(f"task {self.name}: {'; '.join(problems)}") from None

    def help_lines(self) -> list[str]:
        """One line an option, those that must be given first."""
        fields = sorted(self._fields().items(), key=lambda item: not item[1].is_required())
        return [_help_line(name, info) for name, info in fields]

    def _fields(self) -> dict[str, FieldInfo]:
        fields = self.options.model_fields.items()
        return {(info.alias or name).replace("_", "-"): info for name, info in fields}

    def _known(self) -> str:
        own = ", ".join(f"--{n}" for n in self._fields()) or "none of its own"
        return f"it takes {own}; `python -m runner tasks` lists those of every task"

    def _problem(self, where: tuple[int | str, ...], message: str, kind: str) -> str:
        name = "--" + "-".join(str(part).replace("_", "-") for part in where)
        if kind == "missing":
            return f"{name} must be given: {self._fields()[name[2:]].description}"
        if kind == "extra_forbidden":
            return f"{name} is no option of it; {self._known()}"
        return f"{name}: {message}" if where else message


def _help_line(name: str, info: FieldInfo) -> str:
    shown = f"--{name}" if _is_flag(info) else f"--{name} {_value_shown(info.annotation)}"
    note = "must be given" if info.is_required() else f"default: {info.default}"
    if not info.is_required() and info.default in (None, "", False, ()):
        note = "may be left out"
    return f"{shown:<32} {info.description} ({note})"


def _is_flag(info: FieldInfo) -> bool:
    return info.annotation is bool


def _value_shown(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return "|".join(str(choice) for choice in typing.get_args(annotation))
    if origin in (typing.Union, types.UnionType):
        parts = [a for a in typing.get_args(annotation) if a is not type(None)]
        return _value_shown(parts[0])
    return VALUES_SHOWN.get(annotation, "TEXT")
