"""Walking a mechanism beside the null mechanism, one step at a time, and counting what differs.

Two kinds of walk: `over` a recorded trace, where nothing that it answers changes what comes next,
and `search`, where what it proposes is tried and what it accepts is kept. In each step the null
mechanism is asked in the very same situation. Counted on the host side: what a worker says of
itself counts for nothing. What the counts mean, `sandbox.replay` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sandbox.errors import MechanismFailure, Rule
from sandbox.judging import Host, all_problems, own_faults, seed_of
from sandbox.mechanism import Candidate, KnobValue, Mechanism, Trial, View
from sandbox.scripted_prior import ScriptedPrior
from sandbox.surface import Search, view_of
from sandbox.traces import Trace

BATCH_EVERY = 4  # so many steps apart, a batch is wanted: batch mechanisms show there
BATCH = 3
REASON_CHARS = 300
CALLS = (
    *("propose_calls", "ask_calls", "accept_calls", "observe_calls", "proposals_changed"),
    *("candidates_refused", "acceptances_changed", "raised"),
)
NULL = Mechanism()


@dataclass(kw_only=True)
class Tally:
    """What one walk counted.

    `steps` are the times that it was asked what to try next; in one step several candidates may
    be wanted, and a step that gives a measured trial also asks whether to keep it. A step is
    `decisions_changed` if any of its candidates or verdicts is not the null mechanism's.
    """

    name: str
    source: str  # analytic, or where the trace was measured
    about: Mapping[str, Any] = field(default_factory=dict)  # of a measured trace: its provenance
    steps: int = 0
    candidates: int = 0
    verdicts: int = 0  # on measured trials: keep or discard
    empty: int = 0  # steps in which it proposed nothing and the null mechanism something
    calls: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CALLS, 0))
    decisions_changed: int = 0
    repeats_avoided: int = 0
    outside: int = 0
    own: int = 0
    own_outside: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)

    def to_data(self) -> dict[str, Any]:
        """As the report shows it."""
        return {
            "name": self.name,
            "source": self.source,
            "about": dict(self.about),
            "steps": self.steps,
            "candidates": self.candidates,
            "verdicts": self.verdicts,
            "empty": self.empty,
            "calls": self.calls,
            "decisions_changed": self.decisions_changed,
            "repeats_avoided": self.repeats_avoided,
            "outside": self.outside,
            "rows": self.rows,
        }


def totals_of(tallies: Sequence[Tally]) -> dict[str, Any]:
    """The sums over some walks."""
    calls = {key: sum(t.calls[key] for t in tallies) for key in CALLS}
    names = (
        *("steps", "candidates", "verdicts", "empty"),
        *("decisions_changed", "repeats_avoided", "outside"),
    )
    return {
        **{name: sum(getattr(t, name) for t in tallies) for name in names},
        "calls": calls,
        "proposals_changed": calls["proposals_changed"],
        "acceptances_changed": calls["acceptances_changed"],
    }


@dataclass(kw_only=True)
class _Step:
    """One step of a walk while it is being made."""

    number: int
    view: View
    count: int
    prior: ScriptedPrior
    null: list[Candidate]
    given: list[Candidate] = field(default_factory=list)
    raised: str = ""
    null_accept: bool | None = None
    accept: bool | None = None


class Walk:
    """One walk of a mechanism that was never asked before. Raises MechanismFailure.

    `absent` are hooks that its source does not have (`sandbox.replay.absent_hooks`, read from the
    bytes on this side): they are the null mechanism's, and asking for them would cost a question
    each and tell nothing.
    """

    def __init__(
        self,
        host: Host,
        tally: Tally,
        progress: Callable[[], None],
        *,
        rows: bool = True,
        chance: str = "",
        absent: frozenset[str] = frozenset(),
    ) -> None:
        self._host = host
        self._tally = tally
        self._progress = progress
        self._rows = rows
        self._absent = absent
        self._chance = chance or f"replay/{tally.name}"  # all chance of the walk comes from it

    def over(self, trace: Trace) -> None:
        """Step along a recorded trace; what it answers changes nothing in it. What the null
        mechanism would have tried is what was tried."""
        for number in range(1, len(trace.trials)):
            trial = trace.trials[number]
            recorded = Candidate(changes=trial.changes, reason="as recorded")
            step = self._decide(number, _view(trace, number), recorded)
            if trial.metric is not None:
                self._accept(step, trial)
            self._observe(trial, _view(trace, number + 1))
            self._finish(step)

    def search(self, search: Search, trials: int) -> None:
        """Let it search until so many trials are done, the baseline not counted."""
        number = 0
        while len(search.trials) <= trials:
            number += 1
            step = self._decide(number, search.view())
            left = trials + 1 - len(search.trials)
            for index, candidate in enumerate((step.given or step.null[:1])[:left]):
                trial, keep = search.attempt(candidate), False
                if trial.metric is not None:
                    keep = self._accept(step, trial, search.view(), index)
                done = search.finish(trial, keep=keep)
                self._observe(done, search.view())
            self._finish(step)

    def _decide(self, number: int, bare: View, recorded: Candidate | None = None) -> _Step:
        self._progress()
        count = wanted(number)
        prior = ScriptedPrior(bare, seed=self._chance, recorded=recorded)
        view = replace(bare, prior=prior)
        step = _Step(
            number=number, view=view, count=count, prior=prior, null=prior.null_answer(count)
        )
        self._tally.calls["propose_calls"] += 1
        try:
            step.given = self._host.propose(view, count, seed=seed_of(self._chance, number))
        except MechanismFailure as failure:
            bad = any(all_problems(a.changes, view) for a in prior.answers)
            if failure.rule != Rule.RAISED or not bad:
                raise
            step.raised = failure.message
            self._tally.calls["raised"] += 1
        self._tally.calls["ask_calls"] += prior.asked
        return step

    def _accept(self, step: _Step, trial: Trial, view: View | None = None, index: int = 0) -> bool:
        view = view or step.view
        answer = null = NULL.accept(trial, view)
        self._tally.verdicts += 1
        if "accept" not in self._absent:
            seed = seed_of(self._chance, trial.number, "accept")
            answer = self._host.accept(trial, view, seed=seed)
            self._tally.calls["accept_calls"] += 1
        self._tally.calls["acceptances_changed"] += answer != null
        if index == 0 or answer != null:
            step.accept, step.null_accept = answer, null
        return answer

    def _observe(self, trial: Trial, view: View) -> None:
        if "observe" not in self._absent:
            self._host.observe(trial, view, seed=seed_of(self._chance, trial.number, "observe"))
            self._tally.calls["observe_calls"] += 1

    def _finish(self, step: _Step) -> None:
        tally = self._tally
        changed = [c for i, c in enumerate(step.given) if _differs(step, i, c)]
        nothing = not step.raised and not step.given and bool(step.null)
        tally.steps += 1
        tally.candidates += len(step.given)
        tally.empty += nothing
        tally.calls["proposals_changed"] += len(changed)
        self._count(step)
        is_changed = bool(changed) or nothing or step.accept != step.null_accept
        tally.decisions_changed += is_changed
        if self._rows:
            tally.rows.append(_row(step, changed, is_changed))

    def _count(self, step: _Step) -> None:
        """What its candidates are worth."""
        tally, view = self._tally, step.view
        for candidate in step.given:
            wrong = bool(all_problems(candidate.changes, view))
            own = all(candidate.changes != a.changes for a in step.prior.answers)
            tally.calls["candidates_refused"] += wrong
            tally.outside += wrong
            tally.own += own
            tally.own_outside += own and bool(own_faults(candidate, view, step.prior.answers))
        if step.given and step.null and not step.raised:
            tally.repeats_avoided += _is_repeat(step.null[0], view) and not any(
                _is_repeat(c, view) for c in step.given
            )


def wanted(step: int) -> int:
    """How many candidates are wanted in a step."""
    return BATCH if step % BATCH_EVERY == 0 else 1


def _view(trace: Trace, length: int) -> View:
    return view_of(
        trace.space,
        trace.trials[:length],
        frozen=trace.frozen,
        minimize=trace.minimize,
        noise=trace.noise,
    )


def _row(step: _Step, changed: list[Candidate], is_changed: bool) -> dict[str, Any]:
    shown = (changed or step.given or [Candidate(changes={}, reason=step.raised)])[0]
    beside = _beside(step, shown)
    return {
        "step": step.number,
        "count": step.count,
        "null": {"changes": _plain(beside), "accept": step.null_accept},
        "mechanism": {
            "changes": _plain(shown.changes),
            "accept": step.accept,
            "reason": shown.reason[:REASON_CHARS],
        },
        "changed": is_changed,
    }


def _beside(step: _Step, shown: Candidate) -> Mapping[str, KnobValue]:
    """What the null mechanism would have tried in the place of the candidate that is shown."""
    index = next((i for i, c in enumerate(step.given) if c is shown), 0)
    return step.null[index].changes if index < len(step.null) else {}


def _differs(step: _Step, index: int, candidate: Candidate) -> bool:
    if index >= len(step.null):
        return True
    view = step.view
    return view.config_of(candidate.changes) != view.config_of(step.null[index].changes)


def _is_repeat(candidate: Candidate, view: View) -> bool:
    config = view.config_of(candidate.changes)
    return any(dict(trial.config) == config for trial in view.trace)


def _plain(changes: Mapping[str, KnobValue]) -> dict[str, KnobValue]:
    return dict(changes)
