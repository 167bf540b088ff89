"""Mechanisms for another interface: told before anything runs, and honest ones left alone."""

from __future__ import annotations

import pytest

from sandbox.checks import interface
from sandbox.draft import draft_from_files
from sandbox.errors import MechanismFailure, Rule
from sandbox.judging import failure_finding
from sandbox.report import DraftError
from sandbox.syntax import parse

HEAD = "from sandbox.mechanism import Candidate, Mechanism\n"


def told(body: str) -> list[tuple[str, str]]:
    source = f"{HEAD}class A(Mechanism):\n" + "".join(f"    {x}\n" for x in body.split("\n"))
    return [(f.rule, f.message) for f in interface.findings(parse("a", source.encode()), "a")]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("def propose(self, history): pass", "propose(history) can't be called as propose(view"),
        ("def propose(self): pass", "propose() can't be called as propose(view, count)"),
        ("def propose(self, a, b, c): pass", "propose(a, b, c) can't be called"),
        ("def propose(self, *, view, count): pass", "propose(*, view, count) can't be called"),
        ("def propose(self, history, space, n=1): pass", "will be called as propose(view, count)"),
        ("def accept(self, old, new): pass", "accept(old, new) will be called as accept(trial"),
        ("def propose(self, view, count): yield 1", "propose is a generator"),
        ("async def accept(self, trial, view): pass", "accept is async"),
        ("def state(self, deep): pass", "state(deep) can't be called as state()"),
        ("def __init__(self, config): pass", "__init__ asks for config"),
        ("def __init__(self, *, config): pass", "__init__ asks for config"),
    ],
)
def test_hooks_that_can_not_be_called(body: str, says: str) -> None:
    ((rule, message),) = told(body)
    assert rule == "hook-signature"
    assert says in message


@pytest.mark.parametrize(
    "body",
    [
        "pass",
        "def observe(self, trial, view): pass",  # inert, which the replay shows with its numbers
        "def propose(self, view, count): pass\ndef suggest(self): pass",
        "def propose(self, v, n=1): pass",
        "def propose(self, view, count, *more, extra=1, **rest): pass",
        "def propose(self, *args): pass",
        "propose = lambda self, view, count: []\ndef suggest(self): pass",
        "@staticmethod\ndef accept(trial, view): pass",
        "def propose(self, view, count):\n    return list((yield_ for yield_ in ()))",
        "def propose(self, view, count):\n    def e():\n        yield 1\n    return list(e())",
        "def __init__(self, config=None, *rest): pass",
        "def helper(self, history): pass",
    ],
)
def test_what_can_be_called_is_left_alone(body: str) -> None:
    assert told(body) == []


def test_other_names_are_paired_with_ours() -> None:
    ((rule, message),) = told("def suggest(self, n): pass\ndef tell(self, x): pass")
    assert rule == "hooks-not-defined"
    assert "suggest (here: propose(view, count)), tell (here: observe(trial, view))" in message


def test_a_class_that_nobody_finds() -> None:
    source = f"{HEAD}def make():\n    class A(Mechanism):\n        pass\n    return A\n"
    (finding,) = interface.findings(parse("a", source.encode()), "a")
    assert (finding.rule, finding.line) == ("no_mechanism", 3)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("class Mechanism: pass\nclass A(Mechanism): pass", "line 1 makes a class Mechanism"),
        ("from base import Mechanism\nclass A(Mechanism): pass", "line 1 takes Mechanism from"),
        ("class A(Mechanism): pass", "line 1 derives from Mechanism, which is not imported"),
        ("class Tabu: pass\nclass Bandit: pass", "nothing would ever call its classes (Tabu, Ban"),
        ("def propose(): pass", "nothing would ever call its functions (propose)"),
        ("x = 1", "Write `from sandbox.mechanism import Candidate, Mechanism`"),
        ("import sandbox.mechanism\nclass A(other.Mechanism): pass", "classes (A)"),
    ],
)
def test_files_without_a_mechanism_are_told_why(source: str, says: str) -> None:
    with pytest.raises(DraftError, match="defines no subclass") as caught:
        draft_from_files({"mechanisms/a.py": source.encode()}, require_test=False)
    assert caught.value.code == "no_mechanism"
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ("AttributeError: 'View' object has no attribute 'history'", "A View has trace"),
        ("TypeError: Candidate.__init__() got an unexpected keyword argument 'score'", "reason="),
        ("TypeError: 'Trial' object is not subscriptable", "A Trial has number"),
    ],
)
def test_misuse_of_the_interface_is_named_so(message: str, says: str) -> None:
    finding = failure_finding("contract", MechanismFailure(Rule.RAISED, message))
    assert finding.rule == Rule.INTERFACE
    assert says in finding.message
    other = failure_finding("contract", MechanismFailure(Rule.RAISED, f"ValueError: {message}"))
    assert other.rule == Rule.RAISED
