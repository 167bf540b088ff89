"""The tasks that a runner can work on, by name. A new task: one file here that defines `KIND`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from functools import cache

from runner.interfaces import Task
from runner.tasks.base import TaskError
from runner.tasks.kinds import Places, TaskKind, TaskOptions

__all__ = ["Places", "TaskError", "TaskKind", "all_tasks", "get_task", "kind_of"]


@cache
def all_tasks() -> Mapping[str, TaskKind]:
    """Every kind of task by its name: what the files of this folder define as `KIND`."""
    found: dict[str, TaskKind] = {}
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        kind = getattr(importlib.import_module(module.name), "KIND", None)
        if isinstance(kind, TaskKind):
            if kind.name in found:
                raise RuntimeError(f"two tasks are called {kind.name!r}; one is {module.name}")
            found[kind.name] = kind
    return dict(sorted(found.items()))


def kind_of(name: str) -> TaskKind:
    """The kind of task of that name. Raises TaskError."""
    if name not in all_tasks():
        raise TaskError(f"there is no task {name!r}; there are: {', '.join(all_tasks())}")
    return all_tasks()[name]


def get_task(
    name: str,
    options: Mapping[str, object] | Sequence[str] = (),
    *,
    places: Places | None = None,
) -> Task:
    """The task of that name, made of `options`: values by name, or words of a command line.

    Raises TaskError, which says what to write instead.
    """
    kind = kind_of(name)
    if isinstance(options, Mapping):
        checked: TaskOptions = kind.check(options)
    else:
        checked = kind.parse(options)
    return kind.make(checked, places or Places())
