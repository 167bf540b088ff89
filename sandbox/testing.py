"""Helpers for a mechanism's own unit tests: spaces, trials, views and a scripted prior.

In the sandbox image and in the checkout alike, standard library only. Not a test suite and no
judge: a draft's tests can fail it but never pass it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
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


def awkward_views(seed: int = 0) -> dict[str, View]:
    """Views that a mechanism should cope with, by what is odd about them; the prior says nothing.

    In "exhausted" everything was tried: there it may propose nothing.
    """
    space, rng = example_space(), random.Random(seed)  # noqa: S311 - search, not secrets
    one = Space({"BATCH": Knob(kind="power_of_two", default=8, low=1, high=64)})
    two = Space({"KIND": Knob(kind="choice", default="a", choices=("a", "b"))})
    tried = [make_trial(i, 1.0 - i, config={"KIND": k}, status="kept") for i, k in enumerate("ab")]
    long = _walk(space, rng, 40)
    traces: dict[str, tuple[Space, list[Trial]]] = {
        "just begun": (space, long[:1]),
        "long": (space, long),
        "all failed": (space, [long[0], *(make_trial(i, None) for i in range(1, 6))]),
        "outside the space": (
            space,
            [*long[:8], make_trial(8, None, changes={"NO_SUCH_KNOB": 1, "ACTIVATION": 3})],
        ),
        "all the same": (space, [make_trial(i, 1.0, status="kept") for i in range(8)]),
        "one knob": (one, _walk(one, rng, 3)),
        "two values": (two, tried[:1]),
        "exhausted": (two, tried),
        "numbers to choose from": (_numbers(), _walk(_numbers(), rng, 12)),
    }

    def silent(_guidance: str, _count: int) -> list[Candidate]:
        return []

    views = {k: make_view(space=s, trace=t, prior=silent) for k, (s, t) in traces.items()}
    frozen = [name for name in space if name not in ("WEIGHT_DECAY", "TOTAL_BATCH_SIZE")]
    views["mostly frozen"] = make_view(trace=long[:6], frozen=frozen, prior=silent)
    views["maximised"] = make_view(trace=long[:12], prior=silent, minimize=False)
    return views


def faults(answers: Sequence[Candidate], view: View, count: int) -> list[str]:
    """What is wrong with proposals that should be new: outside the space, frozen, repeated."""
    found = [] if len(answers) <= count else [f"{len(answers)} answers, {count} were asked for"]
    seen: list[dict[str, KnobValue]] = []
    for answer in answers:
        config = view.config_of(answer.changes)
        found += view.space.problems(config)
        found += [f"{name} is frozen" for name in answer.changes if name in view.frozen]
        if config in seen or not (found or view.fresh(config)):
            found.append(f"{dict(answer.changes)} was tried or proposed before")
        seen.append(config)
    return found


def _numbers() -> Space:
    rates = (0.01, 0.03, 0.1, 0.3)
    return Space(
        {
            "RATE": Knob(kind="choice", default=0.03, choices=rates),
            "SIZE": Knob(kind="choice", default=64, choices=(16, 32, 64, 96)),
            "KIND": Knob(kind="choice", default="b", choices=("a", "b", "c")),
        }
    )


def _walk(space: Space, rng: random.Random, length: int) -> list[Trial]:
    """Trials at random places, every fifth failed, kept where better."""
    trials: list[Trial] = []
    best, kept = 10.0, space.defaults()
    for number in range(length):
        drawn = {name: knob.at(rng.random()) for name, knob in space.items()}
        config = space.repaired(drawn) if number else kept
        metric = None if number % 5 == 4 else sum(space[n].position(v) for n, v in config.items())
        better = metric is not None and metric < best
        changes = {n: v for n, v in config.items() if v != kept[n]}
        status: Literal["kept"] | None = "kept" if better else None
        trials.append(make_trial(number, metric, config=config, status=status))
        trials[-1] = replace(trials[-1], changes=changes)
        best, kept = (metric, config) if better and metric is not None else (best, kept)
    return trials


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
