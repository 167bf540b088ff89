"""The contract, over mechanisms of our own in this process, behind the host's interface."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from sandbox import contract
from sandbox.errors import InfrastructureError, MechanismFailure, Rule
from sandbox.mechanism import Candidate, Mechanism, Trial, View
from sandbox.report import CheckResult, Outcome, Severity
from sandbox.scripted_prior import Mood
from sandbox.surface import SURFACES

HOOKS = ("propose", "accept", "observe", "state", "restore")


class Host:
    """As the sandbox's host, for a class of ours."""

    output = ""

    def __init__(self, kind: type[Mechanism]) -> None:
        self.kind = kind
        self.mechanism = kind()
        self.hooks = frozenset(h for h in HOOKS if getattr(kind, h) is not getattr(Mechanism, h))

    def reload(self) -> None:
        self.mechanism = self.kind()

    def _call(self, hook: str, *arguments: Any) -> Any:
        try:
            return getattr(self.mechanism, hook)(*arguments)
        except Exception as error:
            raise MechanismFailure(Rule.RAISED, repr(error), hook=hook) from error

    def propose(self, view: View, count: int, *, seed: int) -> list[Candidate]:
        view.random.seed(seed)
        return self._call("propose", view, count)  # type: ignore[no-any-return]

    def accept(self, trial: Trial, view: View, *, seed: int) -> bool:
        view.random.seed(seed)
        return self._call("accept", trial, view)  # type: ignore[no-any-return]

    def observe(self, trial: Trial, view: View, *, seed: int) -> None:
        self._call("observe", trial, view)

    def state(self) -> dict[str, Any]:
        return json.loads(json.dumps(self._call("state")))  # type: ignore[no-any-return]

    def restore(self, state: dict[str, Any]) -> None:
        self._call("restore", state)


def judge(kind: type[Mechanism], **more: Any) -> CheckResult:
    return look(Host(kind), Host(kind), **more)


def look(first: Host, second: Host, **more: Any) -> CheckResult:
    reached: list[contract.Half] = []

    def again() -> contract.Again:
        return contract.look_again(second, reached[0], reload=second.reload)

    return contract.check(first, reload=first.reload, reached=reached.append, again=again, **more)


def rules(result: CheckResult) -> dict[str, Severity]:
    return {f.rule: f.severity for f in result.findings}


class Counting(Mechanism):
    def __init__(self) -> None:
        self.turn = 0

    def propose(self, view: View, count: int) -> list[Candidate]:
        self.turn += 1
        return view.ask(f"turn {self.turn}", count)


class Remembering(Counting):
    def state(self) -> dict[str, Any]:
        return {"turn": self.turn}

    def restore(self, state: dict[str, Any]) -> None:
        self.turn = state["turn"]


class Forgetting(Remembering):
    def state(self) -> dict[str, Any]:
        return {"turn": 0}


class BrokenRestore(Remembering):
    def restore(self, state: dict[str, Any]) -> None:
        raise KeyError("turns")


class Chance(Mechanism):
    numbers = itertools.count()

    def propose(self, view: View, count: int) -> list[Candidate]:
        return view.ask(f"number {next(self.numbers)}", count)


class ChanceState(Mechanism):
    numbers = itertools.count()

    def propose(self, view: View, count: int) -> list[Candidate]:
        return view.ask("other", count)

    def state(self) -> dict[str, Any]:
        return {"number": next(self.numbers)}


class ChanceAccept(Mechanism):
    numbers = itertools.count()

    def accept(self, trial: Trial, view: View) -> bool:
        return next(self.numbers) % 3 == 0


class Nothing(Mechanism):
    def propose(self, view: View, count: int) -> list[Candidate]:
        return []


class Seldom(Mechanism):
    def propose(self, view: View, count: int) -> list[Candidate]:
        return view.ask("other", count) if len(view.trace) % 3 else []


class Outside(Mechanism):
    def propose(self, view: View, count: int) -> list[Candidate]:
        return [Candidate(changes={"WEIGHT_DECAY": -1.0})]


class Frozen(Mechanism):
    def propose(self, view: View, count: int) -> list[Candidate]:
        names = [n for n in view.space if view.space[n].kind == "int"] or ["WEIGHT_DECAY"]
        knob = view.space[names[0]]
        return [Candidate(changes={names[0]: knob.at(1.0)})]


class Clashing(Mechanism):
    """Two knobs that never fit together."""

    def propose(self, view: View, count: int) -> list[Candidate]:
        if "DEVICE_BATCH_SIZE" not in view.space:
            return view.ask("other", count)
        return [Candidate(changes={"DEVICE_BATCH_SIZE": 3})]


class Trusting(Mechanism):
    """Fails where the prior gives nothing or leaves the space."""

    def propose(self, view: View, count: int) -> list[Candidate]:
        first = view.ask("other", count)[0]
        assert all(name in view.space for name in first.changes)
        return [first]


class Raising(Mechanism):
    def accept(self, trial: Trial, view: View) -> bool:
        raise ZeroDivisionError


@pytest.mark.parametrize("kind", [Mechanism, Remembering, Seldom])
def test_holds(kind: type[Mechanism]) -> None:
    result = judge(kind)
    assert (result.outcome, result.findings) == (Outcome.PASSED, ())
    assert result.detail["spaces"] == [s.surface.name for s in contract.SCRIPTS]


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (Forgetting, "STATE_LOST"),
        (BrokenRestore, "RAISED"),
        (Chance, "NONDETERMINISTIC"),
        (ChanceState, "NONDETERMINISTIC"),
        (ChanceAccept, "NONDETERMINISTIC"),
        (Nothing, "NO_CANDIDATES"),
        (Outside, "OUTSIDE_SPACE"),
        (Frozen, "FROZEN_KNOB"),
        (Clashing, "OUTSIDE_SPACE"),
        (Raising, "RAISED"),
    ],
)
def test_fails(kind: type[Mechanism], rule: str) -> None:
    result = judge(kind, path="mechanisms/a.py")
    assert result.outcome is Outcome.FAILED
    assert rules(result).get(rule) is Severity.ERROR, result.findings
    assert all(f.why for f in result.findings)


def test_memory_without_state_is_a_warning() -> None:
    result = judge(Counting)
    assert result.outcome is Outcome.PASSED
    assert rules(result) == {"MEMORY_LOST": Severity.WARNING}


def test_trust_in_the_prior_is_a_warning() -> None:
    result = judge(Trusting)
    assert result.outcome is Outcome.PASSED
    assert rules(result) == {"PRIOR_NOT_CHECKED": Severity.WARNING}
    assert len(result.findings) == 2


def test_prints_are_noted() -> None:
    host = Host(Mechanism)
    host.output = "hello"
    result = look(host, Host(Mechanism))
    assert result.outcome is Outcome.PASSED
    assert rules(result) == {"PRINTS": Severity.NOTE}


def test_an_engine_that_fails_is_not_the_mechanisms_fault() -> None:
    host = Host(Mechanism)

    def again() -> Any:
        raise InfrastructureError("gone")

    with pytest.raises(InfrastructureError):
        contract.check(host, reload=host.reload, reached=lambda _: None, again=again)


def test_scripts_cover_what_they_should() -> None:
    steps = [s for script in contract.SCRIPTS for s in script.steps]
    assert {s.mood for s in steps} == set(Mood)
    assert any(s.fails for s in steps)
    assert any(s.frozen for s in steps)
    assert {s.count for s in steps} >= {1, 2, 3}
    assert {s.surface.minimize for s in contract.SCRIPTS} == {True, False}
    assert {s.surface.name for s in contract.SCRIPTS} == {s.name for s in SURFACES}
    assert all(script.steps[0] == contract.PLAIN for script in contract.SCRIPTS)
