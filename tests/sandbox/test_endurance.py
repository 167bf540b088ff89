"""Many calls and long traces, against mechanisms that only answer from memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from sandbox.endurance import LONG_TRACES, MANY_CALLS, SHORT_TRACE, endure
from sandbox.errors import MechanismFailure, Rule
from sandbox.judging import Fault
from sandbox.mechanism import Candidate, Trial, View


class Fake:
    """A host whose mechanism is a function of the number of the call and the view."""

    hooks = frozenset({"propose"})

    def __init__(self, answer: Callable[[int, View], list[Candidate]]) -> None:
        self.answer = answer
        self.lengths: list[int] = []

    def propose(self, view: View, count: int, *, seed: int) -> list[Candidate]:
        self.lengths.append(len(view.trace))
        return self.answer(len(self.lengths), view)

    def accept(self, trial: Trial, view: View, *, seed: int) -> bool:
        return False

    def observe(self, trial: Trial, view: View, *, seed: int) -> None:
        return None

    def state(self) -> dict[str, Any]:
        return {}


def run(host: Fake, clock: Callable[[], float] | None = None) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []

    def report(fault: Fault, where: str) -> None:
        found.append((fault.rule, where))

    ticks: Iterator[int] = count()
    endure(host, report=report, progress=lambda: None, clock=clock or (lambda: next(ticks) * 1e-6))
    return found


def beyond(view: View) -> list[Candidate]:
    return [Candidate(changes={view.free()[0]: 1e9})]


def test_an_honest_one_is_called_as_often_as_said() -> None:
    host = Fake(lambda _, view: view.ask("another", 1))
    assert run(host) == []
    assert host.lengths == [SHORT_TRACE] * MANY_CALLS + list(LONG_TRACES)


def test_what_comes_at_a_late_call_is_found_and_ends_it() -> None:
    host = Fake(lambda number, view: beyond(view) if number >= 100 else [])
    assert run(host) == [("OUTSIDE_SPACE", "call 100")]
    assert len(host.lengths) == 100


@pytest.mark.parametrize("length", LONG_TRACES)
def test_what_comes_with_a_long_trace_is_found(length: int) -> None:
    host = Fake(lambda _, view: beyond(view) if len(view.trace) >= length else [])
    assert run(host) == [("OUTSIDE_SPACE", f"a trace of {length} trials")]


def test_a_failure_says_where() -> None:
    def fail(number: int, view: View) -> list[Candidate]:
        raise MechanismFailure(Rule.TIMEOUT, "no answer")

    with pytest.raises(MechanismFailure) as caught:
        run(Fake(fail))
    assert caught.value.detail["hook"] == "propose, call 1"


def test_slowness_alone_is_no_fault_on_the_longest_trace() -> None:
    def fail_at(length: int, rule: Rule) -> Fake:
        def propose(number: int, view: View) -> list[Candidate]:
            if len(view.trace) >= length:
                raise MechanismFailure(rule, "no answer")
            return []

        return Fake(propose)

    slow = endure(
        fail_at(LONG_TRACES[-1], Rule.TIMEOUT),
        report=lambda *_: pytest.fail("no fault"),
        progress=lambda: None,
        clock=lambda: 0.0,
    )
    assert (slow.calls, slow.longest_trace, slow.whole) == (MANY_CALLS, LONG_TRACES[-2], False)
    assert slow.too_slow == f"no answer, with a trace of {LONG_TRACES[-1]} trials"
    for length, rule in ((LONG_TRACES[-1], Rule.CRASHED), (LONG_TRACES[-2], Rule.TIMEOUT)):
        with pytest.raises(MechanismFailure):
            run(fail_at(length, rule))


def test_a_slow_one_is_called_less_often() -> None:
    now = [0.0]

    def slow(number: int, view: View) -> list[Candidate]:
        now[0] += 1.0
        return []

    def clock() -> float:
        now[0] += 1e-4  # what a call costs that asks for nothing
        return now[0]

    host = Fake(slow)
    assert run(host, clock) == []
    assert len(host.lengths) < 10


def test_a_busy_machine_makes_nobody_slow() -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.5  # everything takes half a second, the emptiest call as well
        return now[0]

    host = Fake(lambda _, view: [])
    assert run(host, clock) == []
    assert len(host.lengths) == MANY_CALLS + len(LONG_TRACES)
