"""The tasks that a runner can work on, by name. A new task: one file here, one line below."""

from __future__ import annotations

import os
from pathlib import Path

from runner.borders import Task
from runner.tasks.base import ROOT, TaskError
from runner.tasks.gpt import GptTask

__all__ = ["TaskError", "all_tasks", "get_task"]

_TASKS = {GptTask.name: GptTask}
_ABOUT = {
    GptTask.name: "train a small GPT on the standard library's source; val_bpb, lower is better"
}


def all_tasks() -> dict[str, str]:
    """Name and one line about each task."""
    return dict(_ABOUT)


def get_task(name: str, *, budget_seconds: float = 3.0, cache: Path | None = None) -> Task:
    """The task of that name; `cache` (default: below ESCAPEMENT_VAR) keeps prepared data."""
    if name not in _TASKS:
        raise TaskError(f"there is no task {name!r}; there are: {', '.join(sorted(_TASKS))}")
    folder = cache or Path(os.environ.get("ESCAPEMENT_VAR", ROOT / "var")) / "corpus"
    return _TASKS[name](budget_seconds=budget_seconds, cache=folder)
