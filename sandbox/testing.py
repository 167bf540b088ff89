"""Helpers for a mechanism's own unit tests: spaces, trials, views and a scripted prior.

In the sandbox image and in the checkout alike, standard library only. Not a test suite and no
judge: a draft's tests can fail it but never pass it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any, Literal

from sandbox.mechanism import (
    Ask,
    Candidate,
    Config,
    Constraint,
    Knob,
    KnobValue,
    Space,
    Trial,
    View,
)


def example_space() -> Space:
    """A small space with every kind of knob and one constraint."""
    return Space(
        {
            "LEARNING_RATE": Knob(kind="float", default=3e-3, low=1e-5, high=1e-1, log=True),
            "WEIGHT_DECAY": Knob(kind="float", default=0.1, low=0.0, high=1.0),
            "WARMUP_STEPS": Knob(kind="int", default=10, low=0, high=200),
            "DEVICE_BATCH_SIZE": Knob(kind="power_of_two", default=8, low=1, high=64),
            "TOTAL_BATCH_SIZE": Knob(kind="power_of_two", default=16, low=1, high=256),
            "ACTIVATION": Knob(kind="choice", default="gelu", choices=("gelu", "relu", "silu")),
        },
        (Constraint(name="TOTAL_BATCH_SIZE", of="DEVICE_BATCH_SIZE"),),
    )


def make_trial(
    number: int = 1,
    metric: float | None = 1.0,
    *,
    changes: Mapping[str, KnobValue] | None = None,
    config: Config | None = None,
    status: Literal["kept", "discarded", "failed"] | None = None,
    failure: str = "",
    seconds: float = 1.0,
    mechanism: str = "",
) -> Trial:
    """A trial; without `status` it is `discarded`, or `failed` where there is no metric."""
    changes = dict(changes or {})
    base = example_space().defaults() if config is None else dict(config)
    if status is None:
        status = "failed" if metric is None else "discarded"
    return Trial(
        number=number,
        config={**base, **changes},
        changes=changes,
        metric=metric,
        status=status,
        failure=failure or ("crash" if status == "failed" else ""),
        seconds=seconds,
        mechanism=mechanism,
    )


def make_view(
    *,
    trace: Iterable[Trial] | None = None,
    space: Space | None = None,
    frozen: Iterable[str] = (),
    prior: Ask | None = None,
    seed: int = 0,
    minimize: bool = True,
    noise: float | None = None,
) -> View:
    """A view; its best trial is the last kept one. Without a trace there is one kept baseline."""
    space = space or example_space()
    if trace is None:
        trace = [make_trial(0, 1.0, config=space.defaults(), status="kept")]
    trials = tuple(trace)
    kept = [t for t in trials if t.status == "kept"]
    if not kept:
        raise ValueError("a view needs at least one kept trial: the baseline")
    extra: dict[str, Any] = {} if prior is None else {"prior": prior}
    return View(
        trace=trials,
        best=kept[-1],
        space=space,
        frozen=frozenset(frozen),
        random=random.Random(seed),  # noqa: S311 - search, not secrets
        minimize=minimize,
        noise=noise,
        **extra,
    )


class ScriptedPrior:
    """Answers from a list, over and over, and keeps what it was asked in `asked`."""

    def __init__(self, changes: Sequence[Mapping[str, KnobValue]]) -> None:
        if not changes:
            raise ValueError("a scripted prior needs at least one answer")
        self.asked: list[tuple[str, int]] = []
        self._answers = cycle([dict(c) for c in changes])

    def __call__(self, guidance: str, count: int) -> list[Candidate]:
        self.asked.append((guidance, count))
        return [Candidate(changes=next(self._answers), reason="scripted") for _ in range(count)]


def scripted_prior(changes: Sequence[Mapping[str, KnobValue]]) -> ScriptedPrior:
    """A prior for `make_view` that answers with `changes`, one after the other."""
    return ScriptedPrior(changes)
