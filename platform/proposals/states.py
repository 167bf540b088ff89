"""The life of a proposal as data: states, verbs and the table that joins them.

Pure. `lifecycle` is the only module that assigns a state, and it asks this table first; the
drawing in docs/architecture.md is generated from it (`as_mermaid`).
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    SUBMITTED = "submitted"
    SCREENING = "screening"
    FAILED = "failed"
    PASSED = "passed"
    APPROVED = "approved"
    REJECTED = "rejected"
    ACTIVATING = "activating"
    LIVE = "live"
    REFUSED = "refused"
    SUPERSEDED = "superseded"
    ROLLED_BACK = "rolled_back"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


class Verb(StrEnum):
    START_SCREENING = "start_screening"
    PASS = "pass"  # noqa: S105 - a verb
    FAIL = "fail"
    RESCREEN = "rescreen"
    APPROVE = "approve"
    VOID = "void"  # the approval no longer binds to what is there: back to review
    REJECT = "reject"
    ACTIVATE = "activate"
    CONFIRM_LIVE = "confirm_live"
    REFUSE_LOAD = "refuse_load"
    SUPERSEDE = "supersede"
    ROLL_BACK = "roll_back"
    RESTORE = "restore"  # a rollback brought this earlier mechanism back
    WITHDRAW = "withdraw"
    EXPIRE = "expire"


S, V = State, Verb
TRANSITIONS: dict[tuple[State, Verb], State] = {
    (S.SUBMITTED, V.START_SCREENING): S.SCREENING,
    (S.SCREENING, V.PASS): S.PASSED,
    (S.SCREENING, V.FAIL): S.FAILED,
    (S.SCREENING, V.RESCREEN): S.SUBMITTED,  # could not look: look again
    (S.PASSED, V.RESCREEN): S.SUBMITTED,  # base, policy or image moved
    (S.PASSED, V.APPROVE): S.APPROVED,
    (S.PASSED, V.REJECT): S.REJECTED,
    (S.APPROVED, V.ACTIVATE): S.ACTIVATING,
    (S.APPROVED, V.VOID): S.PASSED,
    (S.APPROVED, V.REJECT): S.REJECTED,
    (S.ACTIVATING, V.CONFIRM_LIVE): S.LIVE,
    (S.ACTIVATING, V.REFUSE_LOAD): S.REFUSED,
    (S.ACTIVATING, V.ROLL_BACK): S.ROLLED_BACK,
    (S.ACTIVATING, V.SUPERSEDE): S.SUPERSEDED,
    (S.LIVE, V.SUPERSEDE): S.SUPERSEDED,
    (S.LIVE, V.ROLL_BACK): S.ROLLED_BACK,
    (S.SUPERSEDED, V.RESTORE): S.ACTIVATING,
    (S.ROLLED_BACK, V.RESTORE): S.ACTIVATING,
    **{(s, V.WITHDRAW): S.WITHDRAWN for s in (S.SUBMITTED, S.SCREENING, S.PASSED)},
    **{(s, V.EXPIRE): S.EXPIRED for s in (S.SUBMITTED, S.SCREENING, S.PASSED, S.APPROVED)},
}

OPEN = frozenset({S.SUBMITTED, S.SCREENING, S.PASSED, S.APPROVED, S.ACTIVATING})
FINAL = frozenset({S.FAILED, S.REJECTED, S.REFUSED, S.WITHDRAWN, S.EXPIRED})


class IllegalTransition(ValueError):
    """A verb that the state does not allow."""

    def __init__(self, state: State, verb: Verb) -> None:
        super().__init__(f"a proposal that is {state} can't {verb}")
        self.state, self.verb = state, verb


def after(state: State, verb: Verb) -> State:
    """The state that `verb` leads to. Raises IllegalTransition."""
    try:
        return TRANSITIONS[(state, verb)]
    except KeyError:
        raise IllegalTransition(state, verb) from None


def as_mermaid() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.SUBMITTED}"]
    lines += [f"    {a} --> {b}: {verb}" for (a, verb), b in TRANSITIONS.items()]
    return "\n".join(lines) + "\n"
