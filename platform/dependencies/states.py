"""The life of a request for a package as data: states, verbs and the table that joins them.

Pure. `moves` is the only module that assigns a state, and it asks this table first.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    ASKED = "asked"  # the worker makes the record: wheels, hashes, licences, advisories
    UNFIT = "unfit"  # no record could be made
    IN_REVIEW = "in_review"
    APPROVED = "approved"  # the worker builds the image next
    BUILDING = "building"
    BUILD_FAILED = "build_failed"  # nothing was adopted; it can be built again
    ADOPTED = "adopted"  # what it brings is in the lock and in the image
    REVOKED = "revoked"  # a rollback took it out again
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


class Verb(StrEnum):
    RECORD = "record"
    REFUSE = "refuse"
    APPROVE = "approve"
    VOID = "void"  # what was approved is not what would be built now
    RENEW = "renew"  # the lock moved: the record is made again
    REJECT = "reject"
    WITHDRAW = "withdraw"
    EXPIRE = "expire"
    BUILD = "build"
    FAIL = "fail"
    RETRY = "retry"
    ADOPT = "adopt"
    REVOKE = "revoke"
    RESTORE = "restore"  # a rollback brought it back


S, V = State, Verb
_WAITING = (S.IN_REVIEW, S.APPROVED, S.BUILD_FAILED)
TRANSITIONS: dict[tuple[State, Verb], State] = {
    (S.ASKED, V.RECORD): S.IN_REVIEW,
    (S.ASKED, V.REFUSE): S.UNFIT,
    (S.IN_REVIEW, V.APPROVE): S.APPROVED,
    (S.APPROVED, V.VOID): S.IN_REVIEW,
    (S.BUILD_FAILED, V.VOID): S.IN_REVIEW,
    (S.APPROVED, V.BUILD): S.BUILDING,
    (S.BUILDING, V.FAIL): S.BUILD_FAILED,
    (S.BUILD_FAILED, V.RETRY): S.APPROVED,
    (S.BUILDING, V.ADOPT): S.ADOPTED,
    (S.ADOPTED, V.REVOKE): S.REVOKED,
    (S.REVOKED, V.RESTORE): S.ADOPTED,
    **{(s, V.RENEW): S.ASKED for s in _WAITING},
    **{(s, V.REJECT): S.REJECTED for s in _WAITING},
    **{(s, V.WITHDRAW): S.WITHDRAWN for s in (S.ASKED, *_WAITING)},
    **{(s, V.EXPIRE): S.EXPIRED for s in (S.ASKED, *_WAITING)},
}

OPEN = frozenset({S.ASKED, *_WAITING, S.BUILDING})
FINAL = frozenset({S.UNFIT, S.REJECTED, S.WITHDRAWN, S.EXPIRED})


class IllegalTransition(ValueError):
    """A verb that the state does not allow."""

    def __init__(self, state: State, verb: Verb) -> None:
        super().__init__(f"a request that is {state.replace('_', ' ')} can't {verb}")
        self.state, self.verb = state, verb


def after(state: State, verb: Verb) -> State:
    """The state that `verb` leads to. Raises IllegalTransition."""
    try:
        return TRANSITIONS[(state, verb)]
    except KeyError:
        raise IllegalTransition(state, verb) from None


def as_mermaid() -> str:
    """The table as a Mermaid drawing."""
    lines = ["stateDiagram", f"    [*] --> {State.ASKED}"]
    lines += [f"    {a} --> {b}: {verb}" for (a, verb), b in TRANSITIONS.items()]
    return "\n".join(lines) + "\n"
