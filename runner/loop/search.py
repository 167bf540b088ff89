"""The search: propose, train, decide, remember; round after round, until there are enough.

Knows a task, a prior and the mechanism that runs; knows neither torch, nor a language model, nor
the platform, nor where a mechanism comes from (`Control`). Every step is in the journal before the
next begins, so that this can be killed anywhere and started again.

A round: the mechanism is asked for as many candidates as can be trained at once, they are trained
side by side, and decided one after the other in the order of their numbers, whichever ended first:
what is decided depends on nothing else, so that an interrupted run ends like an uninterrupted one.
Mechanisms are swapped between rounds only.

What happens when a mechanism fails: in `propose`, that trial is recorded as failed (`mechanism`),
with `raised` counted; for the rest, see `runner.loop.recovery`. Once it is given up, a measured
trial is recorded as not kept because nobody decided, and no further one starts before `Control` has
another mechanism.

A prior without an answer is no fault of the mechanism: the trial is recorded as failed
(`no_candidate`), and after MAX_EMPTY in a row the run stops with PriorError, to be resumed. The
same with InfrastructureError, where as many in a row failed for the machine (`infrastructure`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from runner.interfaces import BudgetExceeded, Prior, PriorError, Steering, Task
from runner.loop import baseline, decisions, reports
from runner.loop.acceptance import Decider
from runner.loop.decisions import Asked, Running
from runner.loop.measurements import Measurements, Rules
from runner.loop.noise import Baseline
from runner.loop.recovery import MAX_FAILURES, SupervisedMechanism
from runner.loop.reports import RunState
from runner.loop.trainings import Trainings, awaited
from runner.protocol import HookCounts
from runner.storage.journal import Entry, Journal, derive
from sandbox.errors import InfrastructureError, MechanismFailure
from sandbox.mechanism import View

__all__ = ["MAX_EMPTY", "MAX_FAILURES", "Control", "Outer", "Plan", "Search", "Steer"]

MAX_EMPTY = 3
MESSAGE_CHARS = 4000

Say = Callable[[str], None]
Steer = Callable[[View, Steering], Steering]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How far and how to search.

    `count`: candidates asked for at once, and trained side by side. `baseline_repeats`: trainings
    of the default configuration; `final_repeats`: of the best one, anew, at the end (0: none).
    `keep_sigma`, `confirmations`: see `runner.loop.measurements.Rules`; the journal's own rules,
    where there are some, are the ones that count.
    """

    trials: int
    steer_every: int = 5
    count: int = 1
    baseline_repeats: int = 3
    final_repeats: int = 3
    keep_sigma: float = 2.0
    confirmations: int = 1

    def rules(self) -> Rules:
        """The rules of a run that begins with this plan."""
        return Rules(
            keep_sigma=self.keep_sigma, confirmations=self.confirmations, parallel=self.count
        )


class Control(Protocol):
    """Where mechanisms come from and where news go: `runner.control.platform_link`, or `Local`
    without a platform.

    `approaching`: all of a round is trained, `boundary` will follow soon. `boundary` may block
    (stopped, nothing loaded) and gives the mechanism to use; it does not swap while trials are
    `pending`. `restart` starts a new worker of the same bytes. `activity` and
    `news` are called from several threads.
    """

    def approaching(self) -> None: ...

    def boundary(self, view: View, *, pending: bool) -> Running: ...

    def restart(self, running: Running, state: Mapping[str, Any] | None) -> Running: ...

    def give_up(self, running: Running, reason: str) -> None: ...

    def activity(self, text: str) -> None: ...

    def news(self) -> None: ...


class Outer(Protocol):
    """Level 2, as the search sees it: told at each boundary, never waited for but at the end."""

    def boundary(self, entries: list[Entry], running: Running, steering: Steering) -> None: ...

    def finish(self) -> None: ...


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
        earlier: Iterable[Baseline] = (),
    ) -> None:
        """`earlier`: baselines of the same task on the same host, pooled with this run's."""
        self.journal = journal
        self.task = task
        self.prior = prior
        self.control = control
        self.plan = plan
        self.say = say
        self.steer = steer
        self.outer = outer
        self.rules = Measurements(journal).settle(defaults=plan.rules(), wanted={})
        self._earlier = tuple(earlier)
        self._mechanism = SupervisedMechanism(journal=journal, control=control, say=say)
        self._host_facts: dict[str, Any] | None = None
        self._reporting = threading.Lock()
        self._state: RunState = "running"

    def run(self) -> None:
        """Search until `plan.trials` trials beside the baseline are decided, then measure the best
        anew.

        Raises StopRequested, BudgetExceeded, PriorError, BaselineFailed, InfrastructureError: in
        each case the journal is consistent, and a later `run` goes on from there.
        """
        self.report("running")
        trainings = Trainings(
            journal=self.journal,
            task=self.task,
            parallel=self.rules.parallel,
            say=self.say,
            activity=self.control.activity,
        )
        with trainings:
            baseline.measure(
                trainings, repeats=self.plan.baseline_repeats, earlier=self._earlier, say=self.say
            )
            self.report("running")
            decider = Decider(
                journal=self.journal,
                task=self.task,
                mechanism=self._mechanism,
                trainings=trainings,
                say=self.say,
            )
            while self._round(trainings, decider):
                pass
            baseline.measure_best(trainings, repeats=self.plan.final_repeats)
        if self.outer is not None:
            self.outer.finish()
        self.say(baseline.told(self._result(), self.task.metric))
        self.report("finished")

    def _round(self, trainings: Trainings, decider: Decider) -> bool:
        """One round; False where all trials are decided."""
        pending = self.journal.pending()
        left = self.plan.trials + 1 - self.journal.count()
        if not pending and left <= 0:
            return False
        if not pending:
            self._steer()
        view = self.view()
        self._mechanism.running = self.control.boundary(view, pending=bool(pending))
        if not pending:
            if self.outer is not None:
                steering = self.journal.steering()[1]
                self.outer.boundary(self.journal.decided(), self._mechanism.running, steering)
                self.report_again()  # also what the platform's door said of a draft
            pending = self._propose(view, min(self.rules.parallel, left), decider)
        measured = trainings.measured(pending)
        last = max(measured, default=0)
        for number in sorted(measured):
            entry = awaited(measured[number])
            if number == last:
                self.control.approaching()
            decider.decide(entry, self.view())
            self.control.news()
            if self._mechanism.running is None:
                break  # the rest waits for another mechanism
        for future in measured.values():
            awaited(future)  # a swap is allowed once nothing is being trained
        if measured:
            self._require_a_machine()
        return True

    def _require_a_machine(self) -> None:
        """Raise InfrastructureError where the last trials all failed for this machine (a full disk,
        no card): the next ones would be used up within seconds."""
        last = self.journal.decided()[-MAX_EMPTY:]
        if len(last) == MAX_EMPTY and all(e.failure == "infrastructure" for e in last):
            raise InfrastructureError(
                f"the last {MAX_EMPTY} trials could not be trained on this machine: "
                f"{last[-1].message[:MESSAGE_CHARS]}"
            )

    def view(self) -> View:
        """What a mechanism may see now; it can't ask anything through this one."""
        return decisions.view_of(
            tuple(entry.trial() for entry in self.journal.decided()),
            self.task.space,
            frozen=self.journal.steering()[1].frozen,
            minimize=self.task.minimize,
            noise=self.journal.sigma,
            keep_sigma=self.rules.keep_sigma,
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

    # --- Level 1 ---

    def _propose(self, view: View, count: int, decider: Decider) -> list[Entry]:
        """Ask the mechanism, and store what will be trained (or why nothing can be)."""
        running = self._mechanism.running
        assert running is not None  # noqa: S101 - boundary() gave one
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
            decision = decisions.propose(running.host, view, count, asked=asked, seed=seed)
            choices, counts, error = decision.choices, decision.counts, None
            state = running.host.state()
        except (MechanismFailure, InfrastructureError) as failure:
            choices, state, error = (), None, failure
            counts = HookCounts(propose_calls=1, ask_calls=asked.calls)
        if isinstance(asked.error, BudgetExceeded):
            raise asked.error
        if isinstance(error, InfrastructureError):
            self._mechanism.engine_trouble(error)
            return []
        if choices:
            entries = decisions.planned(running, first, choices, counts)
        else:
            empty = decisions.nothing(
                running, number=first, view=view, asked=asked, counts=counts, error=error
            )
            entries = [empty]
        self.journal.plan(entries, state=state)
        entries = self.journal.pending()  # as a resumed run reads them: in the same order of keys
        self._after_nothing(entries[0], asked, error, decider)
        return entries

    def _after_nothing(
        self, entry: Entry, asked: Asked, error: MechanismFailure | None, decider: Decider
    ) -> None:
        """What follows from an empty `propose`: another worker, another mechanism, or a pause."""
        if entry.failure == "mechanism" and error is not None:
            self._mechanism.failed(str(error), self.journal.failures(entry.digest) + 1)
        elif error is not None:
            self._mechanism.restart()  # it fell over an empty answer of the prior
        if entry.failure != "no_candidate" or self._empty_in_a_row() < MAX_EMPTY:
            return
        if asked.empty:
            decider.decide(entry, self.view())
            raise PriorError(f"{MAX_EMPTY} times in a row: {entry.message}")
        self._mechanism.give_up(f"{MAX_EMPTY} times in a row, {entry.message}")

    def _empty_in_a_row(self) -> int:
        count = 0
        for entry in reversed(self.journal.decided() + self.journal.pending()):
            if entry.failure != "no_candidate":
                break
            count += 1
        return count

    # --- reporting ---

    def _result(self) -> baseline.Result | None:
        return baseline.result(self.journal, minimize=self.task.minimize)

    def report(self, state: RunState) -> None:
        """Store how the run stands, for the platform."""
        with self._reporting:
            self._state = state
            self._report()

    def report_again(self) -> None:
        """Something beside the trials came about, such as a draft. From any thread."""
        with self._reporting:
            self._report()

    def _report(self) -> None:
        if self._host_facts is None:
            self._host_facts = dict(self.task.host())
        report = reports.run_report(
            self.journal,
            self.task,
            prior=self.prior.label,
            facts=self._host_facts,
            planned=self.plan.trials,
            state=self._state,
            level2=self.outer is not None,
        )
        self.journal.set_run_report(report)
        self.control.news()
