"""Check `replay`: what a mechanism would have decided, next to the null mechanism.

Two kinds of walk. Over recorded traces, where nothing it answers changes what comes next: would
this step have been different? And as a search of its own on an analytic surface, where kept trials
and memory have their effect. Counted on the host side; a mechanism that changes nothing is
`inert`, whatever it defines.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sandbox.draft import mechanism_classes
from sandbox.errors import MechanismFailure, Rule
from sandbox.judging import Host, all_problems, failure_finding, own_faults, seed_of
from sandbox.mechanism import Candidate, KnobValue, Mechanism, Trial, View
from sandbox.report import CheckResult, DraftError, Finding, Outcome, Severity
from sandbox.scripted_prior import ScriptedPrior
from sandbox.surface import SOURCE, TRAINER, Search, view_of
from sandbox.syntax import parse
from sandbox.traces import Trace, bundled_traces

CHECK = "replay"
BATCH_EVERY = 4  # so many steps apart, a batch is wanted: batch mechanisms show there
BATCH = 3
LIVE_STEPS = 32
DECIDING = frozenset({"propose", "accept"})
OUTSIDE_SHARE = 0.34
WHY_INERT = (
    "Code that is never called, or whose answers are those of plain Level 1, would be approved, "
    "activated and credited with results that it has no part in."
)
_NULL = Mechanism()


@dataclass(kw_only=True)
class Tally:
    """What one walk counted."""

    name: str
    source: str
    steps: int = 0
    calls: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            (
                "propose_calls",
                "ask_calls",
                "accept_calls",
                "observe_calls",
                "proposals_changed",
                "candidates_refused",
                "acceptances_changed",
                "raised",
            ),
            0,
        )
    )
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
            "steps": self.steps,
            "calls": self.calls,
            "decisions_changed": self.decisions_changed,
            "repeats_avoided": self.repeats_avoided,
            "outside": self.outside,
            "rows": self.rows,
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


def check(
    host: Host,
    *,
    source: bytes,
    reload: Callable[[], None],
    traces: Sequence[Trace] = (),
    path: str = "",
    progress: Callable[[], None] = lambda: None,
) -> CheckResult:
    """Walk the bundled traces, those given, and one search. Raises InfrastructureError."""
    tallies: list[Tally] = []
    findings: list[Finding] = []
    try:
        for trace in [*bundled_traces(), *traces]:
            reload()
            tallies.append(Tally(name=trace.name, source=trace.source))
            _Walk(host, tallies[-1], progress).over(trace)
        reload()
        tallies.append(Tally(name=f"search on {TRAINER.name}", source=SOURCE))
        _Walk(host, tallies[-1], progress).search(Search(surface=TRAINER), LIVE_STEPS)
    except MechanismFailure as failure:
        where = f"{tallies[-1].name}, step {tallies[-1].steps + 1}" if tallies else ""
        findings.append(failure_finding(CHECK, failure, where=where, path=path))
    totals = _totals(tallies)
    if not findings:
        findings.extend(_judge(host, totals, tallies, source, path))
    failed = any(f.severity is Severity.ERROR for f in findings)
    return CheckResult(
        name=CHECK,
        outcome=Outcome.FAILED if failed else Outcome.PASSED,
        findings=tuple(findings),
        detail={"traces": [t.to_data() for t in tallies], "totals": totals},
    )


def _totals(tallies: Sequence[Tally]) -> dict[str, Any]:
    calls = {key: sum(t.calls[key] for t in tallies) for key in Tally(name="", source="").calls}
    return {
        "steps": sum(t.steps for t in tallies),
        "calls": calls,
        "decisions_changed": sum(t.decisions_changed for t in tallies),
        "proposals_changed": calls["proposals_changed"],
        "acceptances_changed": calls["acceptances_changed"],
        "repeats_avoided": sum(t.repeats_avoided for t in tallies),
        "outside": sum(t.outside for t in tallies),
    }


def _judge(
    host: Host, totals: Mapping[str, Any], tallies: Sequence[Tally], source: bytes, path: str
) -> Iterator[Finding]:
    inert = ""
    if not host.hooks & DECIDING:
        named = f"only {', '.join(sorted(host.hooks))}" if host.hooks else "no hook at all"
        inert = f"it overrides {named}: neither what is tried nor what is kept is its own"
    elif not totals["calls"]["propose_calls"]:
        inert = "none of its hooks was called"
    elif not totals["decisions_changed"]:
        inert = (
            f"its hooks ran in {totals['steps']} steps and changed no decision: every proposal "
            "and every acceptance was the null mechanism's"
        )
    if inert:
        if unused := unused_definitions(source):
            inert += f". Defined and never used: {', '.join(unused)}"
        yield _finding("inert", f"inert: {inert}", WHY_INERT, path)
    own, outside = sum(t.own for t in tallies), sum(t.own_outside for t in tallies)
    if outside:
        share = outside / max(own, 1)
        yield _finding(
            "outside-space",
            f"{outside} of its {own} own candidates can't be tried (outside the space, frozen, or "
            "against a constraint)",
            "Each of them would be a trial lost.",
            path,
            Severity.ERROR if share > OUTSIDE_SHARE else Severity.WARNING,
        )
    if raised := totals["calls"]["raised"]:
        yield _finding(
            "PRIOR_NOT_CHECKED",
            f"propose raised in {raised} steps where the prior's answer was outside the space",
            "The prior's answers are unchecked; a careful mechanism expects that.",
            path,
            Severity.WARNING,
        )


def _finding(
    rule: str, message: str, why: str, path: str, severity: Severity = Severity.ERROR
) -> Finding:
    return Finding(check=CHECK, rule=rule, severity=severity, message=message, path=path, why=why)


class _Walk:
    """One walk of a mechanism that was never asked before."""

    def __init__(self, host: Host, tally: Tally, progress: Callable[[], None]) -> None:
        self._host = host
        self._tally = tally
        self._progress = progress

    def over(self, trace: Trace) -> None:
        """Step along a recorded trace; what it answers changes nothing in it."""
        for number in range(1, len(trace.trials)):
            trial = trace.trials[number]
            step = self._decide(number, self._view(trace, number))
            if trial.metric is not None:
                self._accept(step, trial)
            seed = seed_of(trace.name, number, "observe")
            self._host.observe(trial, self._view(trace, number + 1), seed=seed)
            self._tally.calls["observe_calls"] += 1
            self._finish(step)

    def search(self, search: Search, steps: int) -> None:
        """Let it search: what it proposes is tried, what it accepts is kept."""
        for number in range(1, steps + 1):
            step = self._decide(number, search.view())
            for index, candidate in enumerate(step.given or step.null[:1]):
                trial, keep = search.attempt(candidate), False
                if trial.metric is not None:
                    before = search.view()
                    keep = self._accept(step, trial, before, index)
                done = search.finish(trial, keep=keep)
                seed = seed_of(self._tally.name, trial.number, "observe")
                self._host.observe(done, search.view(), seed=seed)
                self._tally.calls["observe_calls"] += 1
            self._finish(step)

    def _view(self, trace: Trace, length: int) -> View:
        return view_of(
            trace.space, trace.trials[:length], frozen=trace.frozen, minimize=trace.minimize
        )

    def _decide(self, number: int, bare: View) -> _Step:
        self._progress()
        count = BATCH if number % BATCH_EVERY == 0 else 1
        prior = ScriptedPrior(bare, seed=f"replay/{self._tally.name}")
        view = View(
            trace=bare.trace,
            best=bare.best,
            space=bare.space,
            frozen=bare.frozen,
            minimize=bare.minimize,
            prior=prior,
        )
        step = _Step(
            number=number, view=view, count=count, prior=prior, null=prior.null_answer(count)
        )
        self._tally.calls["propose_calls"] += 1
        try:
            step.given = self._host.propose(view, count, seed=seed_of(self._tally.name, number))
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
        seed = seed_of(self._tally.name, trial.number, "accept")
        answer = self._host.accept(trial, view, seed=seed)
        null = _NULL.accept(trial, view)
        self._tally.calls["accept_calls"] += 1
        self._tally.calls["acceptances_changed"] += answer != null
        if index == 0 or answer != null:
            step.accept, step.null_accept = answer, null
        return answer

    def _finish(self, step: _Step) -> None:
        tally, view = self._tally, step.view
        changed = [c for i, c in enumerate(step.given) if self._differs(step, i, c)]
        if not step.raised and not step.given and step.null:
            changed = [Candidate(changes={}, reason="proposes nothing")]
        tally.steps += 1
        tally.calls["proposals_changed"] += len(changed)
        for candidate in step.given:
            wrong = bool(all_problems(candidate.changes, view))
            own = all(candidate.changes != a.changes for a in step.prior.answers)
            tally.calls["candidates_refused"] += wrong
            tally.outside += wrong
            tally.own += own
            tally.own_outside += own and bool(own_faults(candidate, view, step.prior.answers))
        if step.given and not step.raised:
            tally.repeats_avoided += _is_repeat(step.null[0], view) and not any(
                _is_repeat(c, view) for c in step.given
            )
        shown = (changed or step.given or [Candidate(changes={}, reason=step.raised)])[0]
        is_changed = bool(changed) or step.accept != step.null_accept
        tally.decisions_changed += is_changed
        tally.rows.append(
            {
                "step": step.number,
                "count": step.count,
                "null": {"changes": _plain(step.null[0].changes), "accept": step.null_accept},
                "mechanism": {
                    "changes": _plain(shown.changes),
                    "accept": step.accept,
                    "reason": shown.reason[:300],
                },
                "changed": is_changed,
            }
        )

    def _differs(self, step: _Step, index: int, candidate: Candidate) -> bool:
        if index >= len(step.null):
            return True
        view = step.view
        return view.config_of(candidate.changes) != view.config_of(step.null[index].changes)


def _is_repeat(candidate: Candidate, view: View) -> bool:
    config = view.config_of(candidate.changes)
    return any(dict(trial.config) == config for trial in view.trace)


def _plain(changes: Mapping[str, KnobValue]) -> dict[str, KnobValue]:
    return dict(changes)


def unused_definitions(source: bytes) -> list[str]:
    """Classes and functions at the top of a file whose names occur nowhere else in it."""
    try:
        tree = parse("mechanism", source)
    except DraftError:
        return []
    named = [n.name for n in tree.body if isinstance(n, (ast.ClassDef, ast.FunctionDef))]
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    mechanisms = {node.name for node in mechanism_classes(tree)}
    return [name for name in named if name not in used and name not in mechanisms][:5]
