"""Which entries of the library count, and which draft varies one of them.

An entry counts only if the platform's signature over its statement holds, the statement says what
the row says, git still holds exactly those bytes, nobody revoked it, and the mechanism was not
taken back. Anything else counts for nothing and is told loudly (`problems`). Reads rows, git and
the key; changes nothing: `library` has the verbs.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audit import keys
from audit.canonical import NotCanonical, digest, encode

from proposals import branches
from proposals.models import OperatorEntry, Proposal
from proposals.states import State
from sandbox.operators import (
    Kind,
    Number,
    Operator,
    OperatorError,
    compare,
    foreign_test,
    operator_of,
    tree_digest,
)
from sandbox.report import Draft, digest_of

PREFIX = b"escapement operator v1\n"
_EXAMINED = (
    *("name", "kind", "standing", "proposal_id", "path", "commit", "digest", "terms"),
    *("statement", "signature"),
)
# What was taken back or refused is no pattern for low risk.
DISOWNED = frozenset({State.REFUSED, State.ROLLED_BACK})
Bounds = Mapping[str, tuple[Number, Number]]


class BadEntry(Exception):
    """An entry that counts for nothing; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """What the library says of a draft: the operator that it varies, or why it is none."""

    operator: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    near: str = ""  # whose syntax tree it has, where it is no variant
    problems: tuple[str, ...] = ()


# --- terms and statements ----------------------------------------------------------------------


def terms_of(operator: Operator, *, path: str, commit: str) -> dict[str, Any]:
    """What people approve: exact files and what may be varied. Numbers are texts, as Python
    writes them, for canonical data has no floats."""
    return {
        "name": operator.name,
        "path": path,
        "commit": commit,
        "digest": digest_of(operator.source),
        "test_digest": digest_of(operator.test),
        "tree": tree_digest(operator.source),
        "parameters": [
            {
                "name": p.name,
                "kind": str(p.kind),
                "value": repr(p.value),
                "low": "" if p.low is None else repr(p.low),
                "high": "" if p.high is None else repr(p.high),
            }
            for p in operator.parameters
        ],
    }


def bounds_of(terms: Mapping[str, Any]) -> Bounds:
    """The bounds that terms name. Raises BadEntry."""
    try:
        return {
            str(p["name"]): (_number(p["low"]), _number(p["high"]))
            for p in terms["parameters"]
            if p["kind"] not in {Kind.FIXED, Kind.TRUTH}
        }
    except (KeyError, TypeError, ValueError) as error:
        raise BadEntry(f"its bounds can't be read ({error})") from error


def _number(text: str) -> Number:
    return int(text) if text.lstrip("-").isdigit() else float(text)


def statement_of(entry: OperatorEntry, *, approved_by: list[dict[str, str]], at: str) -> str:
    """The text that is signed: the terms, who approved them, and when."""
    return encode(
        {
            "v": 1,
            "kind": entry.kind,
            "terms": entry.terms,
            "proposal": entry.proposal_id,
            "approved_by": approved_by,
            "at": at,
        }
    ).decode()


def sign(statement: str) -> str:
    """The platform's signature over a statement."""
    return keys.sign(PREFIX + statement.encode())


# --- what counts -------------------------------------------------------------------------------


def examine(entry: OperatorEntry) -> Operator:
    """The operator that an approved entry names. Raises BadEntry with the reason."""
    if entry.standing != OperatorEntry.Standing.APPROVED:
        raise BadEntry(f"it is {entry.standing}")
    row = (entry.name, entry.path, entry.commit, entry.digest, entry.kind, entry.proposal_id)
    operator = _examined(
        repository=str(branches.living().path),
        public_key=keys.public_key_hex(),
        signed=entry.statement,
        signature=entry.signature,
        terms=json.dumps(entry.terms, sort_keys=True),
        row=row,
    )
    if entry.proposal is not None and entry.proposal.state in DISOWNED:
        raise BadEntry(f"its mechanism was taken back (proposal {entry.proposal_id})")
    return operator


@functools.lru_cache(maxsize=256)
def _examined(
    *,
    repository: str,
    public_key: str,
    signed: str,
    signature: str,
    terms: str,
    row: tuple[str, str, str, str, str, int | None],
) -> Operator:
    """The operator of an entry with exactly this content. Raises BadEntry.

    Cached: all that it depends on is an argument, and what a commit names never changes.
    """
    if not keys.verify(PREFIX + signed.encode(), signature, public_key=public_key):
        raise BadEntry("its signature does not verify")
    said = _said(signed)
    named = [said["terms"].get(key) for key in ("name", "path", "commit", "digest")]
    if (*named, said["kind"], said["proposal"]) != row or said["terms"] != json.loads(terms):
        raise BadEntry("its row says something else than its signed statement")
    return _operator(repository, encode(said["terms"]).decode())


def statement(entry: OperatorEntry) -> dict[str, Any]:
    """What was signed. Raises BadEntry."""
    return _said(entry.statement)


def _said(signed: str) -> dict[str, Any]:
    try:
        said = json.loads(signed)
        if type(said) is not dict or type(said["terms"]) is not dict:
            raise BadEntry("its statement has another form")
        said["kind"], said["proposal"]
    except (ValueError, KeyError, RecursionError) as error:
        raise BadEntry("its statement can't be read") from error
    return said


@functools.lru_cache(maxsize=128)
def _operator(repository: str, text: str) -> Operator:
    """The operator of terms, read from git and compared with them. Raises BadEntry.

    Cached: what a commit names never changes.
    """
    terms = json.loads(text)
    name, commit, living = (
        str(terms["name"]),
        str(terms["commit"]),
        branches.Repository(Path(repository)),
    )
    try:
        source = living.read(commit, str(terms["path"]))
        test = living.read(commit, f"tests/test_{name}.py")
        operator = operator_of(name, source, test, bounds_of(terms))
    except (branches.RepositoryError, OperatorError, KeyError) as error:
        raise BadEntry(f"the repository does not hold it: {error}") from error
    if terms_of(operator, path=str(terms["path"]), commit=commit) != terms:
        raise BadEntry("the repository holds something else than what was signed")
    return operator


def approved() -> tuple[dict[str, Operator], dict[str, str]]:
    """Operators that count, by name; and of approved entries that don't, why (name -> words)."""
    good: dict[str, Operator] = {}
    bad: dict[str, str] = {}
    entries = OperatorEntry.objects.filter(standing=OperatorEntry.Standing.APPROVED)
    # Without what proposals hold beside their state: this is asked at every trial.
    for entry in entries.select_related("proposal").only(*_EXAMINED, "proposal__state"):
        try:
            good[entry.name] = examine(entry)
        except (BadEntry, keys.KeyProblem, NotCanonical) as error:
            bad[entry.name] = str(error)
    return good, bad


def problems() -> list[str]:
    """What is wrong with the library, in words. A mechanism that was taken back is no alarm: its
    entry counts for nothing, as it should."""
    _, bad = approved()
    return [f"{name}: {why}" for name, why in bad.items() if "taken back" not in why]


def recognise(draft: Draft) -> Recognition:
    """What the library says of a draft now."""
    good, _ = approved()
    near = Recognition()
    for operator in good.values():
        found = compare(draft.source, operator)
        if found is None:
            continue
        others = list(found.problems)
        for test in draft.tests.values():
            others += [p] if (p := foreign_test(draft.name, test, operator)) else []
        if not draft.tests:
            others.append("it has no test")
        if not others:
            return Recognition(operator=operator.name, values=found.values)
        near = near if near.near else Recognition(near=operator.name, problems=tuple(others))
    return near


def recognised(proposal: Proposal) -> Recognition:
    """What the library says now of a proposal's commit. Raises RepositoryError."""
    changed = branches.living().changed(proposal.base_commit, proposal.commit)
    files = {path: data for path, data in changed.items() if data is not None}
    if proposal.mechanism_path not in files:
        return Recognition(problems=("its branch does not hold its mechanism",))
    return recognise(Draft(mechanism_path=proposal.mechanism_path, files=files))


def terms_digest(entry: OperatorEntry) -> str:
    """What a person's word for an entry binds to."""
    return digest({"kind": entry.kind, "proposal": entry.proposal_id, "terms": entry.terms})
