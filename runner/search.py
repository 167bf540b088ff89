"""The search: propose, train, decide, remember; one trial after the other, until there are enough.

Knows a task, a prior and the mechanism that runs; knows neither torch, nor a language model, nor
the platform, nor where a mechanism comes from (`Control`). Every step is in the journal before the
next begins, so that this can be killed anywhere and started again.

What happens when a mechanism fails (raises, hangs, dies, answers nonsense):

- in `propose`: that trial is recorded as failed (`mechanism`), with `raised` counted;
- in `accept`, `observe` or `state`: a new worker is started from the same bytes and the last
  stored state, and asked again, once;
- either way the worker is restarted once. A second failure before a whole trial went well means
  that the mechanism is given up: `Control.give_up` reports it, the measured trial is recorded as
  not kept because nobody decided, and no further trial starts before `Control` has another
  mechanism. There is no default that quietly takes over.

A prior without an answer is no fault of the mechanism: the trial is recorded as failed
(`no_candidate`), and after MAX_EMPTY in a row the run stops with PriorError, to be resumed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from runner import baseline, decisions, telling
from runner.borders import BudgetExceeded, Outcome, Prior, PriorError, Steering, Task
from runner.decisions import Asked, Running
from runner.journal import Entry, Journal, Phase, derive
from runner.protocol import HookCounts
from runner.telling import RunState
from sandbox.errors import InfrastructureError, MechanismFailure
from sandbox.mechanism import View

MAX_FAILURES = 2
MAX_EMPTY = 3
MAX_ENGINE_TROUBLES = 3
MESSAGE_CHARS = 4000

T = TypeVar("T")
Say = Callable[[str], None]
Steer = Callable[[View, Steering], Steering]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How far and how to search. `count`: candidates asked for at once."""

    trials: int
    steer_every: int = 5
    count: int = 1
    baseline_repeats: int = 3


class Control(Protocol):
    """Where mechanisms come from and where news go: `runner.link`, or `Local` without a platform.

    `boundary` may block (stopped, nothing loaded) and gives the mechanism to use; it does not swap
    while trials are `pending`. `restart` starts a new worker of the same bytes.
    """

    def boundary(self, view: View, *, pending: bool) -> Running: ...

    def restart(self, running: Running, state: Mapping[str, Any] | None) -> Running: ...

    def give_up(self, running: Running, reason: str) -> None: ...

    def activity(self, text: str) -> None: ...

    def news(self) -> None: ...


class Outer(Protocol):
    """Level 2, as the search sees it: told at each boundary, never waited for but at the end."""

    def boundary(self, entries: list[Entry], running: Running, steering: Steering) -> None: ...

    def finish(self) -> None: ...


class Asking(NamedTuple, Generic[T]):
    """A hook's answer (None: the mechanism was given up), calls made, and how many failed."""

    answer: T | None
    calls: int
    failed: int


class Search:
    """One run of one task. `run` does all of it."""

    def __init__(
        self,
        *,
        journal: Journal,
        task: Task,
        prior: Prior,
        control: Control,
        plan: Plan,
        say: Say,
        steer: Steer | None = None,
        outer: Outer | None = None,
    ) -> None:
        self.journal = journal
        self.task = task
        self.prior = prior
        self.control = control
        self.plan = plan
        self.say = say
        self.steer = steer
        self.outer = outer
        self.running: Running | None = None
        self._host_facts: dict[str, Any] | None = None
        self._engine_troubles = 0

    def run(self) -> None:
        """Search until `plan.trials` trials beside the baseline are decided.

        Raises StopRequested, BudgetExceeded, PriorError, BaselineFailed, InfrastructureError: in
        each case the journal is consistent, and a later `run` goes on from there.
        """
        self.report("running")
        control = self.control
        baseline.measure(
            self.journal,
            self.task,
            repeats=self.plan.baseline_repeats,
            say=self.say,
            activity=control.activity,
            news=control.news,
        )
        self.report("running")
        while True:
            pending = self.journal.pending()
            left = self.plan.trials + 1 - self.journal.count()
            if not pending and left <= 0:
                break
            if not pending:
                self._steer()
            view = self.view()
            self.running = control.boundary(view, pending=bool(pending))
            if not pending:
                if self.outer is not None:
                    steering = self.journal.steering()[1]
                    self.outer.boundary(self.journal.decided(), self.running, steering)
                pending = self._propose(view, min(self.plan.count, left))
            for entry in pending:
                self._decide(self._train(entry))
                if self.running is None:
                    break  # the rest waits for another mechanism
        if self.outer is not None:
            self.outer.finish()
        self.report("finished")

    def view(self) -> View:
        """What a mechanism may see now; it can't ask anything through this one."""
        trace = tuple(entry.trial() for entry in self.journal.decided())
        return decisions.view_of(
            trace,
            self.task.space,
            frozen=self.journal.steering()[1].frozen,
            minimize=self.task.minimize,
        )

    # --- Level 1.5 ---

    def _steer(self) -> None:
        done = self.journal.count() - 1
        last, steering = self.journal.steering()
        due = done - done % self.plan.steer_every
        if self.steer is None or due <= last:
            return
        self.control.activity(f"Level 1.5 after trial {done}")
        try:
            new = self.steer(self.view(), steering)
        except PriorError as error:  # nothing changes, and that is on record
            self.say(f"LEVEL 1.5 FAILED after trial {done}: {error}")
            new = replace(steering, reasons=(f"failed: {error}"[:MESSAGE_CHARS],))
        self.journal.steer(due, new)
        frozen = ", ".join(sorted(new.frozen)) or "nothing"
        self.say(f"Level 1.5 after trial {done}: frozen {frozen}; guidance: {new.guidance or '-'}")
        self.report("running")

    # --- Level 1: propose ---

    def _propose(self, view: View, count: int) -> list[Entry]:
        """Ask the mechanism, and store what will be trained (or why nothing can be)."""
        assert self.running is not None  # noqa: S101 - boundary() gave one
        first = self.journal.count()
        asked = Asked(
            prior=self.prior,
            view=view,
            guidance=self.journal.steering()[1].guidance,
            seed=self.journal.seed,
            number=first,
        )
        seed = derive(self.journal.seed, first, "propose")
        self.control.activity(f"choosing trial {first}")
        try:
            decision = decisions.propose(self.running.host, view, count, asked=asked, seed=seed)
            choices, counts, error = decision.choices, decision.counts, None
            state = self.running.host.state()
        except (MechanismFailure, InfrastructureError) as failure:
            choices, state, error = (), None, failure
            counts = HookCounts(propose_calls=1, ask_calls=asked.calls)
        if isinstance(asked.error, BudgetExceeded):
            raise asked.error
        if isinstance(error, InfrastructureError):
            self._engine_trouble(error)
            return []
        if choices:
            entries = decisions.planned(self.running, first, choices, counts)
        else:
            empty = decisions.nothing(
                self.running, number=first, view=view, asked=asked, counts=counts, error=error
            )
            entries = [empty]
        self.journal.plan(entries, state=state)
        self._after_nothing(entries[0], asked, error)
        return entries

    def _after_nothing(self, entry: Entry, asked: Asked, error: MechanismFailure | None) -> None:
        """What follows from an empty `propose`: another worker, another mechanism, or a pause."""
        if entry.failure == "mechanism" and error is not None:
            self._mechanism_trouble(str(error), self.journal.failures(entry.digest) + 1)
        elif error is not None and self.running is not None:
            self._restart(self.running)  # it fell over an empty answer of the prior
        if entry.failure != "no_candidate" or self._empty_in_a_row() < MAX_EMPTY:
            return
        if asked.empty:
            self._decide(entry)
            raise PriorError(f"{MAX_EMPTY} times in a row: {entry.message}")
        self._give_up(f"{MAX_EMPTY} times in a row, {entry.message}")

    def _empty_in_a_row(self) -> int:
        count = 0
        for entry in reversed(self.journal.decided() + self.journal.pending()):
            if entry.failure != "no_candidate":
                break
            count += 1
        return count

    # --- train ---

    def _train(self, entry: Entry) -> Entry:
        """Train a planned trial and store what came out; a measured one is not trained again."""
        if entry.phase is Phase.MEASURED:
            return entry
        number = entry.number
        changes = ", ".join(f"{k}={v}" for k, v in entry.changes.items()) or "no change"
        self.control.activity(f"training trial {number} of {self.plan.trials}")
        self.say(f"trial {number}: training {changes}")
        outcome = self.task.run(
            entry.config,
            seed=derive(self.journal.seed, number, "train"),
            progress=lambda text: self.control.activity(f"training trial {number}: {text}"),
        )
        outcome = _sane(outcome)
        self.journal.measure(number, outcome)
        return replace(
            entry,
            phase=Phase.MEASURED,
            metric=outcome.metric,
            failure=outcome.failure,
            message=outcome.message,
            seconds=outcome.seconds,
        )

    # --- decide ---

    def _decide(self, entry: Entry) -> None:
        """Have the mechanism accept and observe a measured trial, and store the decision."""
        view = self.view()
        judge = self.running.digest if self.running else entry.digest
        failures = self.journal.failures(judge) + int(entry.failure == "mechanism")
        before = self.journal.failures(judge)
        hooks, kept, message = entry.hooks, False, entry.message
        if entry.metric is not None:
            asked = self._accept(entry, view, failures)
            failures += asked.failed
            kept, changed = asked.answer or (False, False)
            hooks = decisions.add(hooks, accept_calls=asked.calls, acceptances_changed=int(changed))
            hooks = decisions.add(hooks, raised=asked.failed)
            if asked.answer is None:
                message = f"not kept, because nobody decided: the mechanism failed. {message}"
        final = replace(
            entry,
            status="failed" if entry.metric is None else "kept" if kept else "discarded",
            best_metric=entry.metric if kept else view.best.metric,
            message=message[:MESSAGE_CHARS],
        )
        shown = self._observe(final, view, failures)
        failures += shown.failed
        hooks = decisions.add(hooks, observe_calls=shown.calls, raised=shown.failed)
        final = replace(final, hooks=hooks)
        failures = failures if failures > before else 0  # a whole trial went well
        self.journal.decide(final, judge=judge, state=shown.answer, failures=failures)
        self._engine_troubles = 0
        self.say(telling.decided(final, view, self.task.metric))
        self.control.news()

    def _accept(self, entry: Entry, view: View, failures: int) -> Asking[tuple[bool, bool]]:
        tried = replace(entry, status="discarded").trial()
        seed = derive(self.journal.seed, entry.number, "accept")
        return self._ask(lambda r: decisions.accept(r.host, tried, view, seed=seed), failures)

    def _observe(self, final: Entry, view: View, failures: int) -> Asking[dict[str, Any]]:
        """Let the mechanism observe the trial; the answer is its state afterwards."""
        trial = final.trial()
        after = decisions.view_of(
            (*view.trace, trial), view.space, frozen=view.frozen, minimize=view.minimize
        )
        seed = derive(self.journal.seed, final.number, "observe")

        def observe(running: Running) -> dict[str, Any]:
            running.host.observe(trial, after, seed=seed)
            return running.host.state()

        return self._ask(observe, failures)

    def _ask(self, call: Callable[[Running], T], failures: int) -> Asking[T]:
        """Call a hook, and once more in a new worker if it failed."""
        failed = calls = 0
        while self.running is not None:
            calls += 1
            try:
                return Asking(call(self.running), calls, failed)
            except MechanismFailure as error:
                failed += 1
                self._mechanism_trouble(str(error), failures + failed)
            except InfrastructureError as error:
                self._engine_trouble(error)
        return Asking(None, calls, failed)

    # --- trouble ---

    def _mechanism_trouble(self, reason: str, failures: int) -> None:
        """Restart the worker after the first failure, give the mechanism up after the second."""
        assert self.running is not None  # noqa: S101 - it has just failed
        self.say(f"MECHANISM FAILED: {self.running.name}: {reason}")
        if failures >= MAX_FAILURES:
            self._give_up(f"failed {failures} times in a row in production, last: {reason}")
        else:
            self._restart(self.running)

    def _restart(self, running: Running) -> None:
        """A new worker from the same bytes and the last stored state; else it is given up."""
        try:
            self.running = self.control.restart(running, self.journal.state_of(running.digest))
        except MechanismFailure as error:
            self._give_up(f"could not be started again: {error}")

    def _give_up(self, reason: str) -> None:
        if self.running is not None:
            self.say(f"MECHANISM GIVEN UP: {self.running.name}: {reason}")
            running, self.running = self.running, None
            self.control.give_up(running, reason)

    def _engine_trouble(self, error: InfrastructureError) -> None:
        """The sandbox's own trouble is nobody's failure: start the same mechanism once more."""
        assert self.running is not None  # noqa: S101 - it was being asked
        self._engine_troubles += 1
        if self._engine_troubles >= MAX_ENGINE_TROUBLES:
            raise error
        self.say(f"SANDBOX TROUBLE: {error}")
        self._restart(self.running)

    def report(self, state: RunState) -> None:
        """Store how the run stands, for the platform."""
        if self._host_facts is None:
            self._host_facts = dict(self.task.host())
        report = telling.run_report(
            self.journal,
            self.task,
            prior=self.prior.label,
            facts=self._host_facts,
            planned=self.plan.trials,
            state=state,
        )
        self.journal.set_run_report(report)
        self.control.news()


def _sane(outcome: Outcome) -> Outcome:
    """A metric that is no finite number is no metric, whatever the task says."""
    if outcome.metric is not None and not math.isfinite(outcome.metric):
        return replace(outcome, metric=None, failure="nan", message=f"metric {outcome.metric}")
    if outcome.metric is None and not outcome.failure:
        return replace(outcome, failure="no_metric", message=outcome.message or "no metric")
    return outcome
