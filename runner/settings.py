"""What a person typed for `run`, checked, and the parts that it asks for: task, prior, steering,
researcher. Nothing is started here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from runner.borders import Prior, Researcher, Task
from runner.search import Steer
from runner.tasks import Places, get_task

KEY_VARIABLES = ("ESCAPEMENT_LLM_KEY", "OPENAI_API_KEY")
LEDGER = "tokens.json"


class RunSettings(BaseModel):
    """The options of `run`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    task_options: tuple[str, ...] = ()  # words of a command line; the task's file knows them
    trials: int = Field(ge=1, le=100_000)
    out: Path
    prior: Literal["habit", "openai"] = "habit"
    generator: Literal["catalog", "openai"] = "catalog"
    platform: Path | None = None
    seed: int | None = Field(default=None, ge=0, le=2**31 - 1)
    level2_every: int = Field(default=10, ge=0, le=10_000)
    steer_every: int = Field(default=5, ge=1, le=10_000)
    base_url: str = ""
    model: str = ""
    token_cap: int = Field(default=2_000_000, ge=1)

    @model_validator(mode="after")
    def _model_is_named(self) -> RunSettings:
        wanted = "openai" in (self.prior, self.generator)
        if wanted and not (self.base_url and self.model):
            raise ValueError(
                "a language model needs --base-url (such as https://api.openai.com/v1, or a "
                "local server's) and --model; its key is read from the environment variable "
                f"{KEY_VARIABLES[0]}"
            )
        return self


def task_of(settings: RunSettings) -> Task:
    """The task. Raises TaskError."""
    return get_task(settings.task, settings.task_options, places=Places(out=settings.out))


def parts_of(settings: RunSettings, task: Task) -> tuple[Prior, Steer, Researcher | None]:
    """Prior, Level 1.5 and Level 2 as asked for. A language model is loaded only if one is."""
    from runner.catalog import CatalogResearcher  # noqa: PLC0415
    from runner.steering import OpenAISteering, ScriptedSteering  # noqa: PLC0415
    from runner.strategy import HabitPrior, OpenAIPrior  # noqa: PLC0415

    prior: Prior = HabitPrior()
    steer: Steer = ScriptedSteering()
    researcher: Researcher | None = CatalogResearcher()
    if "openai" in (settings.prior, settings.generator):
        from runner.ledger import Ledger  # noqa: PLC0415
        from runner.llm import Llm  # noqa: PLC0415 - openai takes seconds to load
        from runner.research import OpenAIResearcher  # noqa: PLC0415

        llm = Llm(
            base_url=settings.base_url,
            model=settings.model,
            api_key=next((os.environ[v] for v in KEY_VARIABLES if os.environ.get(v)), ""),
            ledger=Ledger(cap_tokens=settings.token_cap, path=settings.out / LEDGER),
        )
        if settings.prior == "openai":
            prior = OpenAIPrior(llm, description=task.description, metric=task.metric)
            steer = OpenAISteering(llm, metric=task.metric)
        if settings.generator == "openai":
            researcher = OpenAIResearcher(llm, metric=task.metric)
    return prior, steer, (researcher if settings.level2_every else None)
