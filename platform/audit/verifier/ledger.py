"""Where each state may lead, and what the log has told so far: the ground that rules stand on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from audit.verifier.result import Kind, Problem

# Where each state may lead; "" is "not there yet".
PATHS: dict[str, dict[str, set[str]]] = {
    "proposal": {
        "": {"submitted"},
        "submitted": {"screening", "withdrawn", "expired"},
        "screening": {"passed", "failed", "submitted", "withdrawn", "expired"},
        "passed": {"submitted", "approved", "rejected", "withdrawn", "expired"},
        "approved": {"activating", "passed", "rejected", "expired"},
        "activating": {"live", "refused", "rolled_back", "superseded"},
        "live": {"superseded", "rolled_back"},
        "superseded": {"activating"},
        "rolled_back": {"activating"},
    },
    "activation": {
        "": {"activating"},
        "activating": {"live", "refused", "superseded", "rolled_back"},
        "live": {"superseded", "rolled_back"},
    },
    "review": {"": {"valid"}, "valid": {"consumed", "voided"}},
    "dependency": {
        "": {"asked"},
        "asked": {"unfit", "in_review", "withdrawn", "expired"},
        "in_review": {"approved", "asked", "rejected", "withdrawn", "expired"},
        "approved": {"building", "in_review", "asked", "rejected", "withdrawn", "expired"},
        "building": {"build_failed", "adopted"},
        "build_failed": {"approved", "in_review", "asked", "rejected", "withdrawn", "expired"},
        "adopted": {"revoked"},
        "revoked": {"adopted"},
    },
    "dependency-review": {"": {"valid"}, "valid": {"consumed", "voided"}},
    "operator": {"": {"nominated", "approved"}, "nominated": {"approved", "declined"}}
    | {"approved": {"revoked"}},
}
# The only verb that leads to a state.
ONLY_BY = {
    ("proposal", "submitted", ""): "proposal.submitted",
    ("proposal", "passed", "screening"): "screening.finished",
    ("proposal", "failed", "screening"): "screening.finished",
    ("proposal", "approved", "passed"): "review.approved",
    ("proposal", "rejected", "passed"): "review.rejected",
    ("proposal", "rejected", "approved"): "review.rejected",
    ("review", "consumed", "valid"): "activation.requested",
    ("dependency", "approved", "in_review"): "dependency.approved",
    ("dependency", "adopted", "building"): "dependency.adopted",
    ("dependency", "adopted", "revoked"): "lock.rolled_back",
    ("dependency", "revoked", "adopted"): "lock.rolled_back",
    ("dependency-review", "consumed", "valid"): "dependency.adopted",
    ("operator", "approved", ""): "operator.entered",
    ("operator", "approved", "nominated"): "operator.approved",
    **{
        (what, state, before): verb
        for what in ("proposal", "activation")
        for state, verb in (("activating", "activation.requested"), ("live", "activation.live"))
        for before in ("", "approved", "superseded", "rolled_back", "activating")
    },
}


class Ledger:
    """Replays what the log tells, entry by entry; `_on_VERB` of those who build on it judge."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.facts: dict[str, dict[str, Any]] = {}
        self._submitted: dict[int, dict[str, Any]] = {}
        self._author: dict[int, dict[str, str]] = {}
        self._screened: dict[int, dict[str, Any]] = {}
        self._reviews: dict[int, dict[str, Any]] = {}
        self._activations: dict[int, dict[str, Any]] = {}
        self._was_live: set[int] = set()
        self._activated: set[int] = set()
        self._policy: dict[str, Any] = {}
        self._stops: set[str] = set()
        self._words: dict[int, dict[str, str]] = {}
        self._packages: dict[int, dict[str, Any]] = {}
        self._assents: dict[int, dict[str, Any]] = {}
        self._locks: dict[int, str] = {}
        self._body: Mapping[str, Any] = {}

    def read(self, body: Mapping[str, Any]) -> None:
        """Take up one sound entry."""
        self._body = body
        handler = getattr(self, "_on_" + body["verb"].replace(".", "_"), None)
        try:
            if handler is not None:
                handler(body["data"])
            for move in body["data"].get("moves", []):
                self._move(str(move["of"]), str(move["from"]), str(move["to"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._say(f"{body['verb']} does not have the data that it must have ({error!r})")

    def _say(self, message: str) -> None:
        self.problems.append(Problem(kind=Kind.RULE, seq=self._body["seq"], message=message))

    def _must(self, holds: object, message: str) -> None:
        if not holds:
            self._say(message)

    def _fact(self, of: str, **known: Any) -> None:
        self.facts.setdefault(of, {}).update(known)

    def _move(self, of: str, before: str, to: str) -> None:
        """Rule 1, order."""
        what, verb = of.partition(":")[0], self._body["verb"]
        known = self.facts.get(of, {}).get("state", "")
        self._must(before == known, f"{of} is said to be '{before}', the log left it '{known}'")
        self._must(
            to in PATHS.get(what, {}).get(before, ()), f"{of} may not go from '{before}' to '{to}'"
        )
        only = ONLY_BY.get((what, to, before), verb)
        self._must(only == verb, f"{of} became '{to}' by {verb} and not by {only}")
        self._fact(of, state=to)
        if what == "activation" and to == "live":
            number = int(of.partition(":")[2])
            self._was_live.add(number)
