"""Whether what lies in an ablation's folder is what a command wrote there: the right fields, finite
numbers, the right arm, repeat and seed, nothing that others contradict.

A file that was cut, swapped or edited into nonsense is refused by name. A number that was replaced
by another sound one is not found out here: the folder belongs to whoever runs the command.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from runner.arms.spec import ArmsError
from runner.protocol import HookCounts

Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Outcome(_Strict):
    config: dict[str, Any]
    metric: Finite | None
    failure: str


class _Training(_Outcome):
    seed: int
    seconds: Finite
    message: str = ""


class _Mechanism(_Strict):
    digest: str
    mechanism: str
    first_trial: int
    trials: int
    hooks: HookCounts


class _Record(_Strict):
    arm: str
    repeat: int
    seed: int
    prior: str
    level2: str
    baseline: list[Finite] = Field(min_length=1)
    trainings: list[_Outcome]
    trials: int
    mechanisms: list[_Mechanism]
    events: list[dict[str, Any]]
    remeasured: list[Finite] = []
    remeasured_failed: int = 0


_TRAININGS = TypeAdapter(list[_Training])


def check_trainings(rows: list[Any]) -> None:
    """Raise ValueError where the lines of a book are no trainings."""
    try:
        _TRAININGS.validate_python(rows)
    except ValidationError as error:
        raise ValueError(_first(error)) from None


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"


def check_record(
    data: Any, *, arm: str, repeat: int, seed: int, trainings: int, knobs: Collection[str]
) -> None:
    """Raise ValueError where `data` is not the record of that repeat, with at most so many
    trainings, each of all knobs."""
    try:
        found = _Record.model_validate(data)
    except ValidationError as error:
        raise ValueError(_first(error)) from None
    if (found.arm, found.repeat, found.seed) != (arm, repeat, seed):
        raise ValueError(f"it is repeat {found.repeat} of arm {found.arm}, seed {found.seed}")
    if len(found.trainings) > trainings:
        raise ValueError(f"{len(found.trainings)} trainings, the budget is {trainings}")
    if any(set(t.config) != set(knobs) for t in found.trainings):
        raise ValueError("a training with other knobs than the task's")


def check_shared(baselines: Mapping[str, list[float]], repeat: int) -> None:
    """Raise ArmsError where the arms of a repeat do not have one baseline."""
    if any(one != other for one in baselines.values() for other in baselines.values()):
        arms = ", ".join(baselines)
        raise ArmsError(
            f"the arms of repeat {repeat + 1} ({arms}) have different baselines, so they can't be "
            f"compared: runs/baseline/{repeat:03d}.jsonl was changed or removed. Remove it and "
            f"runs/*/{repeat:03d}* to run that repeat again"
        )
