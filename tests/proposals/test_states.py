"""The table of states, and who may assign one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from proposals.states import (
    FINAL,
    OPEN,
    TRANSITIONS,
    IllegalTransition,
    State,
    Verb,
    after,
    as_mermaid,
)

ROOT = Path(__file__).resolve().parents[2]
# One place for each lifecycle; the tables of states keep one in an exception.
MAY_ASSIGN = {"platform/proposals/acts.py", "platform/dependencies/moves.py"}
TABLES = {"platform/proposals/states.py", "platform/dependencies/states.py"}


def test_final_states_lead_nowhere_and_open_ones_on() -> None:
    leave = {state for state, _ in TRANSITIONS}
    assert not FINAL & leave
    assert leave >= OPEN
    assert FINAL.isdisjoint(OPEN)


def test_every_state_is_reached_from_submitted() -> None:
    reached, before = {State.SUBMITTED}, set[State]()
    while reached != before:
        before = set(reached)
        reached |= {to for (start, _), to in TRANSITIONS.items() if start in before}
    assert reached == set(State)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("verb", Verb)
def test_what_is_not_in_the_table_is_illegal(state: State, verb: Verb) -> None:
    if (state, verb) in TRANSITIONS:
        assert after(state, verb) is TRANSITIONS[(state, verb)]
    else:
        with pytest.raises(IllegalTransition):
            after(state, verb)


def test_nothing_goes_live_without_approval_or_having_been_live() -> None:
    into = {(start, verb) for (start, verb), to in TRANSITIONS.items() if to is State.ACTIVATING}
    assert into == {
        (State.APPROVED, Verb.ACTIVATE),
        (State.SUPERSEDED, Verb.RESTORE),
        (State.ROLLED_BACK, Verb.RESTORE),
    }
    assert {s for (s, v), to in TRANSITIONS.items() if to is State.LIVE} == {State.ACTIVATING}


def test_the_drawing_has_every_move() -> None:
    assert as_mermaid().count("-->") == len(TRANSITIONS) + 1


def test_only_the_lifecycle_assigns_a_state() -> None:
    """Attributes `.state` and `.standing`, and updates by keyword, in all of the platform."""
    found = set()
    for path in (ROOT / "platform").rglob("*.py"):
        name = str(path.relative_to(ROOT))
        if "migrations" in name or name in TABLES:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            targets: list[ast.expr] = []
            if isinstance(node, ast.Assign):
                targets = node.targets
            elif isinstance(node, ast.AugAssign | ast.AnnAssign):
                targets = [node.target]
            for target in targets:
                for part in ast.walk(target):
                    if isinstance(part, ast.Attribute) and part.attr in {"state", "standing"}:
                        found.add(name)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr in {"update", "bulk_update"} and {
                    k.arg for k in node.keywords
                } & {"state", "standing"}:
                    found.add(name)
                if node.func.attr == "__setattr__":
                    found.add(name)
    assert found <= MAY_ASSIGN, f"states are assigned in {found - MAY_ASSIGN}"
    assert found == MAY_ASSIGN
