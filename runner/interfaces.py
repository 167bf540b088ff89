"""The interfaces inside the runner: what a task, a prior and a researcher are to the search.

Small protocols and the plain values that cross them. The search (`runner.loop.search`) knows only
these; the files that know torch, the LLM or the platform implement them. Nothing is done here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from runner.protocol import LibraryEntry, Round
from sandbox.mechanism import Candidate, Config, Space, Trial, View

FAILURES = ("constraint", "oom", "nan", "timeout", "crash", "no_metric", "infrastructure")
LARGEST_METRIC = 1e100  # of its size: above, a variance is no number any more


class BudgetExceeded(RuntimeError):
    """The language model's token or cost cap is reached: the run pauses, and says so."""


class PriorError(RuntimeError):
    """The prior gave nothing usable after its retries; the message says what it answered.

    `rule`: the class of what was wrong, counted at the end of a run. `rounds`: what had been asked
    and answered before, where Level 2 ended so.
    """

    rounds: tuple[Round, ...] = ()

    def __init__(self, message: str, *, rule: str = "") -> None:
        super().__init__(message)
        self.rule = rule


class DraftRefused(PriorError):
    """What was drafted is not worth submitting. `why`: `RULE: reason`; `title`: what it called
    itself."""

    def __init__(self, why: str, *, title: str) -> None:
        super().__init__(why, rule=why.partition(":")[0])
        self.title = title


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one training gave. `metric` is None exactly if `failure` names a class of FAILURES."""

    metric: float | None
    failure: str = ""
    message: str = ""
    seconds: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """Something that can be tried with a configuration and measures one metric.

    `run` starts a subprocess under a deadline and never raises for what the trial did; it raises
    only for a programming error. `digest` (SHA-256 hex) covers everything that makes metrics
    comparable: trainer code, data, budget, evaluator. `host` is facts to print beside a number.
    """

    name: str
    metric: str
    minimize: bool
    space: Space
    description: str

    @property
    def digest(self) -> str: ...

    def host(self) -> dict[str, Any]: ...

    def run(
        self, config: Config, *, seed: int, progress: Callable[[str], None] | None = None
    ) -> Outcome: ...


class Prior(Protocol):
    """Level 1: proposes changes from the whole history. `label` says honestly what it is.

    `runner.settings` gives a prior that has an `earlier_runs` the runs that memory knows.
    """

    label: str

    def ask(self, view: View, guidance: str, count: int) -> list[Candidate]:
        """Up to `count` candidates, not yet checked against the space. Raises PriorError."""


@dataclass(frozen=True, kw_only=True)
class Steering:
    """Level 1.5: knobs to freeze and unfreeze, and guidance text for the prior."""

    frozen: frozenset[str]
    guidance: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EarlierRun:
    """Trials of another run of the same task (same task digest): context to read, never part of
    this run's trace. Numbers and classes alone; nobody's free text comes along.

    `source` is where it was found (`folder` or `platform`), `host` names the machine in words;
    metrics of another host (`same_host` false) may differ by more than noise. `sigma`: that run's
    noise, in units of the metric. `trials` may be a selection: the baseline, what was kept, then
    the newest; `trials_in_all` says of how many.
    """

    run_id: str
    source: str
    runner: str
    host: str
    same_host: bool
    started_at: str
    metric: str
    minimize: bool
    sigma: float | None
    trials_in_all: int
    trials: tuple[Trial, ...]


class Memo(Protocol):
    """What a draft that is being written remembers over a restart of the runner."""

    def get(self, key: str) -> dict[str, Any] | None:
        """What was put there, or None."""

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Keep plain data until the draft is done."""


@dataclass(frozen=True, kw_only=True)
class ResearchContext:
    """What Level 2 may see; `memo`: where it keeps what was answered until the draft is done."""

    trace: tuple[Trial, ...]
    best: Trial
    space: Space
    frozen: frozenset[str]
    guidance: str
    minimize: bool
    sigma: float | None
    mechanism_name: str
    mechanism_source: str
    mechanism_digest: str
    base_commit: str
    library: tuple[LibraryEntry, ...]
    earlier_drafts: tuple[Mapping[str, Any], ...] = ()  # see DraftEntry.memory
    seed: int = 0
    earlier_runs: tuple[EarlierRun, ...] = ()
    memo: Memo | None = None


@dataclass(frozen=True, kw_only=True)
class ResearchDraft:
    """A drafted mechanism with its four rounds, ready for submission."""

    title: str
    summary: str
    files: Mapping[str, str]
    operator: str
    parameters: Mapping[str, Any]
    diagnosis: Mapping[str, Any]
    rounds: tuple[Round, ...]
    generator: str


class Researcher(Protocol):
    """Level 2. `label` says honestly what generates."""

    label: str

    def draft(
        self, context: ResearchContext, progress: Callable[[str], None] | None = None
    ) -> ResearchDraft | None:
        """A draft, or None where no mechanism was selected. Raises PriorError, BudgetExceeded."""
