"""Kept or not: a measured trial is confirmed where its gain may be chance, then the mechanism is
asked, shown what became of it, and the decision is stored with its state.

The keep rule of a run: a gain above `keep_sigma` standard deviations of the trial's metric. A
smaller one is trained again with another seed, a few times at most, and counts with the mean of
its measurements. The rule is what `Mechanism.accept` does by default; a mechanism that overrides
it decides by itself, and the difference is counted (`acceptances_changed`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from runner.interfaces import Outcome, Task
from runner.loop import decisions, reports
from runner.loop.decisions import Running
from runner.loop.measurements import Purpose
from runner.loop.noise import mean_of
from runner.loop.recovery import Asking, SupervisedMechanism
from runner.loop.trainings import Trainings
from runner.storage.journal import Entry, Journal, derive
from sandbox.mechanism import View

MESSAGE_CHARS = 4000


class Decider:
    """Decides one measured trial at a time, in the order of their numbers."""

    def __init__(
        self,
        *,
        journal: Journal,
        task: Task,
        mechanism: SupervisedMechanism,
        trainings: Trainings,
        say: Callable[[str], None],
    ) -> None:
        self.journal = journal
        self.task = task
        self.mechanism = mechanism
        self.trainings = trainings
        self.say = say

    def decide(self, entry: Entry, view: View) -> None:
        """Have the mechanism accept and observe a measured trial, and store the decision.
        `view` is as before it."""
        entry = self._confirmed(entry, view)
        running = self.mechanism.running
        judge = running.digest if running else entry.digest
        before = self.journal.failures(judge)
        failures = before + int(entry.failure == "mechanism")
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
        shown = self._observe(final, view, failures, accepted_by=self.mechanism.running)
        failures += shown.failed
        hooks = decisions.add(hooks, observe_calls=shown.calls, raised=shown.failed)
        final = replace(final, hooks=hooks)
        failures = failures if failures > before else 0  # a whole trial went well
        self.journal.decide(final, judge=judge, state=shown.answer, failures=failures)
        self.mechanism.went_well()
        self.say(reports.decided(final, view, self.task.metric))

    def _confirmed(self, entry: Entry, view: View) -> Entry:
        """The entry with the mean of its measurements, after as many as the rules ask for."""
        if entry.metric is None:
            return entry
        once = entry
        for wanted in range(self.trainings.measurements.rules.confirmations + 1):
            outcomes = self.trainings.again(
                Purpose.CONFIRM,
                once.number,
                once.config,
                wanted=wanted,
                what=f"trial {once.number}, to confirm its gain,",
            )
            entry = _mean(once, outcomes)
            if not _may_be_chance(entry, view):
                break
        return entry

    def _accept(self, entry: Entry, view: View, failures: int) -> Asking[tuple[bool, bool]]:
        return self.mechanism.ask(lambda running: self._accepted(running, entry, view), failures)

    def _accepted(self, running: Running, entry: Entry, view: View) -> tuple[bool, bool]:
        tried = replace(entry, status="discarded").trial()
        seed = derive(self.journal.seed, entry.number, "accept")
        return decisions.accept(running.host, tried, view, seed=seed)

    def _observe(
        self, final: Entry, view: View, failures: int, *, accepted_by: Running | None
    ) -> Asking[dict[str, Any]]:
        """Let the mechanism observe the trial; the answer is its state afterwards."""
        trial = final.trial()
        after = decisions.after(view, trial)
        seed = derive(self.journal.seed, final.number, "observe")

        def observe(running: Running) -> dict[str, Any]:
            if running is not accepted_by and final.metric is not None:
                self._accepted(running, final, view)  # a new worker: its state is from before that
            running.host.observe(trial, after, seed=seed)
            return running.host.state()

        return self.mechanism.ask(observe, failures)


def _may_be_chance(entry: Entry, view: View) -> bool:
    """Whether it gained, and less than the keep rule asks for."""
    trial = replace(entry, status="discarded").trial()
    gain = view.gain(trial)
    return gain is not None and 0 < gain <= view.margin(trial)


def _mean(once: Entry, outcomes: Sequence[Outcome]) -> Entry:
    """A trial that was measured once, with the outcomes of training it again."""
    if once.metric is None or not outcomes:
        return once
    good = [once.metric, *(o.metric for o in outcomes if o.metric is not None)]
    failed = len(outcomes) + 1 - len(good)
    return replace(
        once,
        metric=mean_of(good),
        repeats=tuple(good) if len(good) > 1 else (),
        seconds=once.seconds + sum(o.seconds for o in outcomes),
        message=f"{failed} training(s) to confirm it failed" if failed else once.message,
    )
