"""The one place that changes a state of requests and of their reviews.

Each move is noted in the ledger of the verb that is open (`proposals.acts.act`), whose audit entry
tells of it: a move without an entry is an error.
"""

from __future__ import annotations

from typing import Any

from proposals.acts import MAX_REASON_CHARS, Denied, Ledger

from dependencies.models import DependencyRequest, DependencyReview, LockVersion
from dependencies.states import State, Verb, after


def move(
    ledger: Ledger,
    request: DependencyRequest,
    verb: Verb,
    reason: str = "",
    *,
    code: str = "",
) -> None:
    """Move a request along the table. Raises Denied where the state does not allow it."""
    before = State(request.state)
    try:
        request.state = after(before, verb)
    except ValueError as error:
        raise Denied("wrong_state", f"{error}: look again, it moved on") from error
    request.state_reason, request.code = reason[:MAX_REASON_CHARS], code
    request.progress = ""
    request.save()
    _note(ledger, f"dependency:{request.pk}", before, request.state)


def created(ledger: Ledger, row: DependencyRequest | DependencyReview) -> None:
    """Note a row that was just made."""
    if isinstance(row, DependencyReview):
        _note(ledger, f"dependency-review:{row.pk}", "", row.standing)
    else:
        _note(ledger, f"dependency:{row.pk}", "", row.state)


def consume(ledger: Ledger, review: DependencyReview, lock: LockVersion) -> None:
    """Use a valid approval up."""
    _stand(ledger, review, DependencyReview.Standing.CONSUMED, consumed_by=lock)


def void_all(ledger: Ledger, request: DependencyRequest, reason: str) -> None:
    """Void what was decided so far, and say so on the log."""
    reviews = list(request.reviews.filter(standing=DependencyReview.Standing.VALID))
    for review in reviews:
        _stand(
            ledger,
            review,
            DependencyReview.Standing.VOIDED,
            void_reason=reason[:MAX_REASON_CHARS],
        )
    if reviews:
        ledger.write(
            "dependency.voided",
            subject=f"dependency:{request.pk}",
            reason=reason,
            data={"dependency": request.pk, "reviews": [r.pk for r in reviews]},
        )


def _stand(
    ledger: Ledger,
    review: DependencyReview,
    standing: DependencyReview.Standing,
    **fields: Any,
) -> None:
    valid = DependencyReview.objects.filter(pk=review.pk, standing=DependencyReview.Standing.VALID)
    if not valid.update(standing=standing, **fields):
        raise Denied("already_used", "this approval was used or voided meanwhile")
    review.refresh_from_db()
    before = DependencyReview.Standing.VALID
    _note(ledger, f"dependency-review:{review.pk}", before, standing)


def _note(ledger: Ledger, of: str, before: str, to: str) -> None:
    ledger.moves.append({"of": of, "from": str(before), "to": str(to)})
