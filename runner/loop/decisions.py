"""One decision of a mechanism at a time: ask it, count what it did, check what it answered.

Counting and checking happen here, on the host side of the sandbox: what a mechanism says of
itself counts for nothing. This runs no trial and stores nothing (`runner.loop.search` does both).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from runner.interfaces import BudgetExceeded, Prior, PriorError
from runner.protocol import HookCounts
from runner.storage.journal import Entry, Phase, derive
from sandbox.mechanism import Candidate, Config, Mechanism, Space, Trial, View

PROBLEM_CHARS = 500
MESSAGE_CHARS = 4000


class Host(Protocol):
    """One mechanism that answers: in a sandbox worker (`sandbox.host`), or `InProcess`."""

    def propose(self, view: View, count: int, *, seed: int) -> list[Candidate]: ...

    def accept(self, trial: Trial, view: View, *, seed: int) -> bool: ...

    def observe(self, trial: Trial, view: View, *, seed: int) -> None: ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class InProcess:
    """The null mechanism in this very process: our own code, for runs without a platform.

    Never anything else: whatever has a digest runs in a sandbox worker.
    """

    def __init__(self, mechanism: Mechanism) -> None:
        self.mechanism = mechanism

    def propose(self, view: View, count: int, *, seed: int) -> list[Candidate]:
        """Candidates for the next trials."""
        return self.mechanism.propose(_seeded(view, seed), count)

    def accept(self, trial: Trial, view: View, *, seed: int) -> bool:
        """Whether the trial becomes the new best."""
        return self.mechanism.accept(trial, _seeded(view, seed))

    def observe(self, trial: Trial, view: View, *, seed: int) -> None:
        """Show a finished trial."""
        self.mechanism.observe(trial, _seeded(view, seed))

    def state(self) -> dict[str, Any]:
        """The mechanism's state."""
        return self.mechanism.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state."""
        self.mechanism.restore(state)

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, kw_only=True)
class Running:
    """A mechanism that answers now, and what it is: `digest` is of the very bytes that were sent
    to its worker, "" for the null mechanism in this process."""

    host: Host
    name: str
    digest: str
    version: int
    source: str = ""
    posture: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One candidate after checking: `problems` is empty exactly if it may be trained."""

    changes: Config
    config: Config
    reason: str
    problems: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Asked:
    """The prior as a mechanism sees it during one `propose`: counts the asks, adds the guidance of
    Level 1.5, and never lets the prior's own trouble look like the mechanism's.

    A prior that fails gives an empty answer here (the interface allows one); `error` keeps why.
    """

    prior: Prior
    view: View
    guidance: str
    seed: int
    number: int
    calls: int = 0
    given: int = 0
    unguided: list[Candidate] | None = None
    error: PriorError | BudgetExceeded | None = None

    @property
    def empty(self) -> bool:
        """Whether it was asked and never gave a candidate."""
        return self.calls > 0 and self.given == 0

    def __call__(self, guidance: str, count: int) -> list[Candidate]:
        """Ask the prior."""
        self.calls += 1
        if self.error is not None:
            return []  # it failed in this very decision: asking again would cost, not help
        seed = derive(self.seed, self.number, f"ask/{self.calls}")
        text = "\n".join(part for part in (self.guidance, guidance) if part)
        try:
            answer = self.prior.ask(_seeded(self.view, seed), text, count)
        except (PriorError, BudgetExceeded) as error:
            self.error = error
            return []
        self.given += len(answer)
        if not guidance and self.unguided is None:
            self.unguided = list(answer)
        return answer


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What came of one `propose`: checked candidates (may be none) and the counters so far."""

    choices: tuple[Choice, ...]
    counts: HookCounts


def propose(host: Host, view: View, count: int, *, asked: Asked, seed: int) -> Decision:
    """Ask for up to `count` candidates and check each against the space and the frozen knobs.

    `proposals_changed` counts candidates that differ from what the null mechanism would have
    tried: the prior's first unguided answer in this call. Where a mechanism never asked without
    guidance there is no such answer, and each of its candidates is a decision of its own.
    Raises whatever the host raises.
    """
    shown = _with_prior(view, asked)
    candidates = host.propose(shown, count, seed=seed)[:count]
    choices = tuple(check(candidate, view) for candidate in candidates)
    plain = asked.unguided or []
    changed = sum(
        i >= len(plain) or dict(plain[i].changes) != dict(candidate.changes)
        for i, candidate in enumerate(candidates)
    )
    counts = HookCounts(
        propose_calls=1,
        ask_calls=asked.calls,
        proposals_changed=changed,
        candidates_refused=sum(bool(choice.problems) for choice in choices),
    )
    return Decision(choices=choices, counts=counts)


def check(candidate: Candidate, view: View) -> Choice:
    """The candidate as a whole configuration, with everything that is wrong with it."""
    config = view.config_of(candidate.changes)
    problems = [
        f"{name} is frozen at {view.best.config.get(name)!r}"
        for name, value in candidate.changes.items()
        if name in view.frozen and value != view.best.config.get(name)
    ]
    problems += view.space.problems(config)
    return Choice(
        changes=dict(candidate.changes),
        config=config,
        reason=candidate.reason[:2000],
        problems=tuple(p[:PROBLEM_CHARS] for p in problems),
    )


def accept(host: Host, trial: Trial, view: View, *, seed: int) -> tuple[bool, bool]:
    """Whether the mechanism keeps the trial, and whether the default rule would not agree."""
    answer = host.accept(trial, view, seed=seed)
    return answer, answer != Mechanism().accept(trial, view)


def add(one: HookCounts, **more: int) -> HookCounts:
    """The counters, with some of them raised."""
    return one.model_copy(update={name: getattr(one, name) + n for name, n in more.items()})


def view_of(
    trace: tuple[Trial, ...],
    space: Space,
    *,
    frozen: frozenset[str],
    minimize: bool,
    noise: float | None = None,
    keep_sigma: float = 0.0,
) -> View:
    """The view after `trace`, whose last kept trial is the best."""
    return View(
        trace=trace,
        best=next(t for t in reversed(trace) if t.status == "kept"),
        space=space,
        frozen=frozen,
        minimize=minimize,
        noise=noise,
        keep_sigma=keep_sigma,
    )


def after(view: View, trial: Trial) -> View:
    """The view once `trial` is part of the trace."""
    best = trial if trial.status == "kept" else view.best
    return replace(view, trace=(*view.trace, trial), best=best)


def _seeded(view: View, seed: int) -> View:
    return replace(view, random=random.Random(seed))  # noqa: S311 - reproducible, not secret


def _with_prior(view: View, ask: Callable[[str, int], list[Candidate]]) -> View:
    return replace(view, prior=ask)


def planned(
    running: Running, first: int, choices: tuple[Choice, ...], counts: HookCounts
) -> list[Entry]:
    """Journal entries for checked candidates; what was refused is a failed trial already. The
    counters of the one `propose` go to the first."""
    return [
        Entry(
            number=first + i,
            phase=Phase.MEASURED if choice.problems else Phase.PLANNED,
            config=choice.config,
            changes=choice.changes,
            reason=choice.reason,
            mechanism=running.name,
            digest=running.digest,
            version=running.version,
            hooks=counts if i == 0 else HookCounts(),
            failure="constraint" if choice.problems else "",
            message="; ".join(choice.problems)[:MESSAGE_CHARS],
        )
        for i, choice in enumerate(choices)
    ]


def nothing(
    running: Running,
    *,
    number: int,
    view: View,
    asked: Asked,
    counts: HookCounts,
    error: Exception | None,
) -> Entry:
    """The record of a trial for which there was nothing to train: `no_candidate`, or `mechanism`
    where the mechanism failed and the prior did not."""
    failure = "no_candidate"
    if asked.error is not None:
        message = f"the prior gave nothing usable: {asked.error}"
    elif error is not None:
        failure, message = "mechanism", f"the mechanism failed in propose: {error}"
        counts = add(counts, raised=1)
    elif asked.empty:
        message = "the prior answered without a candidate"
    else:
        message = "the mechanism answered without a candidate"
    return Entry(
        number=number,
        phase=Phase.MEASURED,
        config=dict(view.best.config),
        changes={},
        mechanism=running.name,
        digest=running.digest,
        version=running.version,
        hooks=counts,
        failure=failure,
        message=message[:MESSAGE_CHARS],
    )
