"""Several language models in the order in which they are asked: the next one where one fails.

Falling back is never silent: it is said, counted in the ledger under the model that failed, and
the answer names the model that gave it. This knows no protocol (`runner.llm.client` does).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel

from runner.llm.answers import Fault, LlmError
from runner.llm.client import Answer, Llm

M = TypeVar("M", bound=BaseModel)

# Where nobody answers now, nobody is asked again for a while: each attempt costs its deadline.
REST_SECONDS = 300.0
AWAY = (Fault.UNREACHABLE, Fault.BROKEN, Fault.DEADLINE, Fault.SERVER_ERROR)


@dataclass
class _Standing:
    llm: Llm
    rests_until: float = 0.0


class Providers:
    """At least one language model; `ask` is that of the first which gives a usable answer."""

    def __init__(
        self,
        models: Sequence[Llm],
        *,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not models:
            raise ValueError("name at least one language model")
        self._models = [_Standing(llm) for llm in models]
        self._say = say
        self._clock = clock

    @property
    def model(self) -> str:
        """All of them, in their order."""
        return ", else ".join(standing.llm.model for standing in self._models)

    def ask(self, prompt: str, *, schema: type[M], purpose: str) -> Answer[M]:
        """One question. Raises LlmError where none gives a usable answer, and BudgetExceeded.

        One that rests is asked only where all others failed: a run must not stop for a rest.
        """
        awake = [s for s in self._models if s.rests_until <= self._clock()]
        resting = [s for s in self._models if s not in awake]
        failures: list[LlmError] = []
        for position, standing in enumerate(order := [*awake, *resting]):
            try:
                return standing.llm.ask(prompt, schema=schema, purpose=purpose)
            except LlmError as error:
                failures.append(error)
                if error.fault in AWAY:
                    standing.rests_until = self._clock() + (error.wait_seconds or REST_SECONDS)
                if position + 1 < len(order):
                    self._say(
                        f"LANGUAGE MODEL FAILED: {standing.llm.model}: {error}; "
                        f"asking {order[position + 1].llm.model} instead"
                    )
        if len(failures) == 1:
            raise failures[0]
        told = " | ".join(
            f"{s.llm.model}: {e.fault}: {e.detail}" for s, e in zip(order, failures, strict=True)
        )
        raise LlmError(failures[-1].fault, f"none of {len(order)} models answered: {told}")
