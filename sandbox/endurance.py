"""Whether a mechanism goes on as it began: many calls of one instance, then long traces.

A part of the check `contract`, on a worker that it has used already. What waits for its hundredth
call or for a long trace before it misbehaves shows here, if it waits no longer than this; what
waits longer meets the limits of the runner, as anything does that is live. Slow mechanisms get
fewer calls, which is no fault; how far it was looked at stands in the report.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Any, Protocol

from sandbox.errors import MechanismFailure, Rule
from sandbox.judging import Fault, Host, own_faults, seed_of
from sandbox.mechanism import Trial, View
from sandbox.scripted_prior import ScriptedPrior
from sandbox.surface import RATES, Search, view_of

MANY_CALLS = 150
SLOW = 60  # times a call that asks for nothing: so many, and a mechanism counts as slow
SLOW_SECONDS = 3.0  # of the clock, for the calls of a slow one
SHORT_TRACE = 12
LONG_TRACES = (60, 220, 600)
PATIENT_ABOVE = 220  # trials: a model of cubic cost is honest, and has a minute when it is live
NAME = "endurance"
RULE = "CONSTRAINT"  # between knobs: it may be broken now and then, and is counted elsewhere


class ContractHost(Host, Protocol):
    """One mechanism that answers, and that has a state."""

    def state(self) -> dict[str, Any]: ...


@dataclass(kw_only=True)
class Endured:
    """How far it was looked at, for the report. `too_slow` says what was not answered in time."""

    calls: int = 0
    longest_trace: int = 0
    too_slow: str = ""

    @property
    def whole(self) -> bool:
        """Whether it was asked all there is to ask."""
        return self.calls == MANY_CALLS and self.longest_trace == LONG_TRACES[-1]


Report = Callable[[Fault, str], None]
"""Takes up a fault, and after how many calls or trials it came."""


def endure(
    host: ContractHost,
    *,
    report: Report,
    progress: Callable[[], None],
    clock: Callable[[], float] = time.monotonic,
) -> Endured:
    """Raises MechanismFailure, with the place in its detail `hook`; stops at the first fault."""
    endured = Endured()
    least = _round_trip(host, clock)
    began = clock()
    for number in range(1, MANY_CALLS + 1):
        spent = clock() - began
        if spent > SLOW_SECONDS and spent > number * SLOW * least:
            break  # measured against the machine: a busy one makes nobody slow
        progress()
        if _once(host, SHORT_TRACE, number, report):
            return endured
        endured.calls = number
    for length in LONG_TRACES:
        progress()
        began = clock()
        try:
            faulty = _once(host, length, 1, report)
        except MechanismFailure as failure:
            if failure.rule == Rule.TIMEOUT and length > PATIENT_ABOVE:
                endured.too_slow = f"{failure.message}, with a trace of {length} trials"
                return endured  # its worker is gone; nothing more is asked of it here
            raise
        spent = clock() - began
        if faulty:
            return endured
        endured.longest_trace = length
        if spent > SLOW_SECONDS and spent > 10 * SLOW * least:
            break
    return endured


def _round_trip(host: ContractHost, clock: Callable[[], float]) -> float:
    """Seconds of a call in which the mechanism is hardly asked for anything."""
    seconds = []
    for _ in range(9):
        began = clock()
        host.state()
        seconds.append(clock() - began)
    return median(seconds)


def _once(host: Host, length: int, number: int, report: Report) -> bool:
    """One step; whether there was a fault."""
    where = f"call {number}" if length == SHORT_TRACE else f"a trace of {length} trials"
    trials = _trials(length)
    bare = view_of(RATES.space, trials)
    prior = ScriptedPrior(bare, seed=f"{NAME}/{number}")
    view = view_of(RATES.space, trials, prior=prior)
    seed = seed_of(NAME, length, number)
    faults: list[Fault] = []
    try:
        for candidate in host.propose(view, 1, seed=seed):
            faults += [f for f in own_faults(candidate, bare, prior.answers) if f.rule != RULE]
        if number == 1:
            host.accept(_next(trials), bare, seed=seed)
            host.observe(_next(trials), bare, seed=seed)
    except MechanismFailure as failure:
        failure.detail["hook"] = f"{failure.detail.get('hook') or 'propose'}, {where}"
        raise
    for fault in faults:
        report(fault, where)
    return bool(faults)


@cache
def _trials(length: int) -> tuple[Trial, ...]:
    """A trace as plain Level 1 would leave it; made once, it is only data."""
    search = Search(surface=RATES)
    while len(search.trials) < length:
        view = search.view()
        for candidate in ScriptedPrior(view, seed=NAME).null_answer(1):
            trial = search.attempt(candidate)
            better = trial.metric is not None and view.better(trial.metric, _best(view))
            search.finish(trial, keep=better)
    return tuple(search.trials)


def _best(view: View) -> float:
    return view.best.metric if view.best.metric is not None else float("inf")


def _next(trials: tuple[Trial, ...]) -> Trial:
    """One more trial, of no particular merit."""
    last = trials[-1]
    return Trial(
        number=len(trials),
        config=last.config,
        changes=last.changes,
        metric=trials[0].metric,
        status="discarded",
        seconds=last.seconds,
    )
