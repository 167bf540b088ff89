"""What a person typed for `run`, checked, and the parts that it asks for: task, prior, steering,
researcher. Nothing is started here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from runner.control.platform_client import PlatformClient, PlatformError
from runner.interfaces import EarlierRun, Prior, Researcher, Task
from runner.llm.ledger import FREE, Ledger, Price
from runner.loop.measurements import Measurements
from runner.loop.memory import Remembered, host_of, remember
from runner.loop.search import Steer
from runner.storage.journal import Journal
from runner.tasks import Places, get_task

if TYPE_CHECKING:
    from runner.llm.providers import Providers

KEY_VARIABLES = ("ESCAPEMENT_LLM_KEY", "OPENAI_API_KEY")
LEDGER = "tokens.json"
MAX_MODELS = 8
_FALLBACK = re.compile(r"^(.{1,200}?)@(https?://.+)$")
_HOST = re.compile(r"^([^@\s]*@)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:\d+)?$")
_PRICE = re.compile(r"^(\d+(?:\.\d+)?),(\d+(?:\.\d+)?)$")


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
    cost_cap: float | None = Field(default=None, gt=0)
    prices: tuple[str, ...] = Field(default=(), max_length=MAX_MODELS)
    fallbacks: tuple[str, ...] = Field(default=(), max_length=MAX_MODELS - 1)
    call_seconds: float = Field(default=120.0, gt=0, le=3600)
    prompts: Path | None = None
    parallel: int | None = Field(default=None, ge=1, le=64)
    keep_sigma: float | None = Field(default=None, ge=0, le=10)
    confirmations: int | None = Field(default=None, ge=0, le=10)
    repeats: int = Field(default=3, ge=1, le=50)
    memory: Path | None = None  # the folder that holds folders of runs

    @model_validator(mode="after")
    def _model_is_named(self) -> RunSettings:
        wanted = "openai" in (self.prior, self.generator)
        if wanted and not (self.base_url and self.model):
            raise ValueError(
                "a language model needs --base-url (such as https://api.openai.com/v1, or a "
                "local server's) and --model; its key is read from the environment variable "
                f"{KEY_VARIABLES[0]}"
            )
        alone = ("base_url", "model", "fallbacks", "prices", "cost_cap", "prompts")
        if not wanted and (idle := [name for name in alone if getattr(self, name)]):
            shown = {"fallbacks": "fallback", "prices": "price"}.get(idle[0], idle[0])
            raise ValueError(
                f"--{shown.replace('_', '-')} is for a language model, and none is asked: add "
                "--prior openai, --generator openai, or both"
            )
        for text in self.fallbacks:
            if not _FALLBACK.match(text):
                raise ValueError(f"--fallback {text!r}: write MODEL@BASE_URL")
        wrong = [url for _, url in self._named() if not _is_url(url)] if wanted else []
        if wrong:
            raise ValueError(f"{wrong[0]!r} is no base URL: write http://HOST/... or https://...")
        for text in self.prices:
            if not _PRICE.match(text):
                raise ValueError(f"--price {text!r}: write PROMPT,ANSWER per million tokens")
        models = 1 + len(self.fallbacks)
        if (self.prices or self.cost_cap) and len(self.prices) != models:
            raise ValueError(
                f"--price is needed once for each of the {models} models, in their order; "
                f"given: {len(self.prices)}"
            )
        return self

    def rules(self) -> dict[str, int | float | None]:
        """What was asked of `runner.loop.measurements.Rules`; None: the run's own, or the
        default."""
        return {
            "parallel": self.parallel,
            "keep_sigma": self.keep_sigma,
            "confirmations": self.confirmations,
        }

    def _named(self) -> list[tuple[str, str]]:
        matches = [_FALLBACK.match(text) for text in self.fallbacks]
        return [(self.model, self.base_url), *((m[1], m[2]) for m in matches if m)]

    def models(self) -> list[tuple[str, str, str, Price]]:
        """Model, base URL, key and price of each language model, in the order of asking."""
        named = self._named()
        prices = [
            Price(prompt=float(m[1]), answer=float(m[2]))
            for text in self.prices
            if (m := _PRICE.match(text))
        ] or [FREE] * len(named)
        return [
            (model, url, _key(place), price)
            for place, ((model, url), price) in enumerate(zip(named, prices, strict=True))
        ]


def _is_url(text: str) -> bool:
    """Whether requests can go there, as far as its text says."""
    try:
        parts = urlsplit(text)
        usable = parts.port != 0
    except ValueError:
        return False
    return usable and parts.scheme in {"http", "https"} and bool(_HOST.match(parts.netloc))


def problems_of(error: ValidationError) -> list[str]:
    """What is wrong with what was typed, an option a line."""
    lines = []
    for problem in error.errors():
        words = [part for part in problem["loc"] if isinstance(part, str) and part != "run"]
        option = words[-1] if words else ""  # `run`: the options of `run` within those of `arms`
        why = problem["msg"].removeprefix("Value error, ")
        lines.append(f"--{option.replace('_', '-')}: {why}" if option else why)
    return lines


def _key(place: int) -> str:
    """ESCAPEMENT_LLM_KEY for the first model, ESCAPEMENT_LLM_KEY_1 for its first fall-back ...

    No model is ever sent another one's key.
    """
    names = [f"{KEY_VARIABLES[0]}_{place}"] if place else KEY_VARIABLES
    return next((key for n in names if (key := os.environ.get(n, "").strip())), "")


def task_of(settings: RunSettings) -> Task:
    """The task. Raises TaskError."""
    return get_task(settings.task, settings.task_options, places=Places(out=settings.out))


def remembered_by(
    settings: RunSettings, task: Task, journal: Journal, client: PlatformClient | None
) -> Remembered:
    """What memory holds for this run, whose rules are settled; notes the host that measures it.

    Raises JournalError where the run was measured on another host.
    """
    measurements = Measurements(journal)
    host = host_of(task.host(), parallel=measurements.rules.parallel)
    measurements.set_host(host)
    ask_platform = None
    if client is not None and settings.memory is not None:
        ask_platform = partial(client.memory, task_digest=task.digest, run_id=journal.run_id)
    return remember(
        journal,
        task_digest=task.digest,
        host=host,
        folder=settings.memory,
        ask_platform=ask_platform,
        unreachable=(PlatformError,),
    )


def parts_of(
    settings: RunSettings,
    task: Task,
    say: Callable[[str], None],
    earlier_runs: tuple[EarlierRun, ...] = (),
) -> tuple[Prior, Steer, Researcher | None]:
    """Prior, Level 1.5 and Level 2 as asked for. A language model is loaded only if one is.

    Raises PromptError, BudgetExceeded (where the ledger of before can't be read).
    """
    from runner.levels.catalog import CatalogResearcher  # noqa: PLC0415
    from runner.levels.steering import OpenAISteering, ScriptedSteering  # noqa: PLC0415
    from runner.levels.strategy import HabitPrior, OpenAIPrior  # noqa: PLC0415

    prior: Prior = HabitPrior()
    steer: Steer = ScriptedSteering()
    researcher: Researcher | None = CatalogResearcher()
    if "openai" in (settings.prior, settings.generator):
        from runner.levels.research import OpenAIResearcher  # noqa: PLC0415
        from runner.llm.prompting import Prompts  # noqa: PLC0415

        prompts = Prompts(settings.prompts) if settings.prompts else Prompts()
        llm = _language_models(settings, say)
        if settings.prior == "openai":
            prior = openai = OpenAIPrior(
                llm, description=task.description, metric=task.metric, prompts=prompts
            )
            openai.earlier_runs = earlier_runs
            steer = OpenAISteering(llm, metric=task.metric, prompts=prompts)
        if settings.generator == "openai":
            researcher = OpenAIResearcher(llm, metric=task.metric, prompts=prompts)
    return prior, steer, (researcher if settings.level2_every else None)


def _language_models(settings: RunSettings, say: Callable[[str], None]) -> Providers:
    """All that were named, on one ledger. Raises BudgetExceeded."""
    from runner.llm.client import Llm  # noqa: PLC0415 - openai takes seconds to load
    from runner.llm.providers import Providers  # noqa: PLC0415

    ledger = Ledger(
        cap_tokens=settings.token_cap, cap_cost=settings.cost_cap, path=settings.out / LEDGER
    )
    models = [
        Llm(
            base_url=url,
            model=model,
            api_key=key,
            ledger=ledger,
            price=price,
            deadline_seconds=settings.call_seconds,
            question_seconds=2.5 * settings.call_seconds,
        )
        for model, url, key, price in settings.models()
    ]
    return Providers(models, say=say)
