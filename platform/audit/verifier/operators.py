"""The library of approved operators in a bundle: each entry is signed, and is what the log says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from audit.verifier.result import Kind, Problem
from audit.verifier.signing import canonical, sha256, signature_holds

OPERATOR_PREFIX = b"escapement operator v1\n"


def signed_operators(
    folder: Path, facts: Mapping[str, Mapping[str, Any]], *, key: str
) -> Iterator[Problem]:
    """What is wrong with `operators/`: every entry of the log has its file there, and no other."""
    known = {
        f"operators/{of.partition(':')[2]}-{said.get('name')}.json": (of, said)
        for of, said in facts.items()
        if of.partition(":")[0] == "operator"
    }
    there = {p.relative_to(folder).as_posix() for p in (folder / "operators").rglob("*.json")}
    for path in sorted(there - set(known)):
        yield Problem(kind=Kind.FILE, seq=None, message=f"{path}: the log knows no such operator")
    for path, (of, said) in known.items():
        try:
            entry = json.loads((folder / path).read_bytes())
            wrong = list(_compared(entry, of, said, key=key))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            wrong = [(Kind.FILE, f"it can't be read as an operator ({error!r})")]
        for kind, message in wrong:
            yield Problem(kind=kind, seq=None, message=f"{path}: {message}")


def _compared(
    entry: Mapping[str, Any], of: str, said: Mapping[str, Any], *, key: str
) -> Iterator[tuple[Kind, str]]:
    """One entry against the log, its terms against its statement, that against its signature."""
    terms, statement = entry["terms"], entry["statement"]
    about = {"kind": entry["kind"], "proposal": entry["proposal_id"], "terms": terms}
    told = {
        **{name: entry[name] for name in ("name", "kind", "commit", "digest")},
        "state": entry["standing"],
        "terms_digest": sha256(canonical(about)),
        "statement": sha256(canonical(statement)) if statement else "",
    }
    for name, value in told.items():
        if said.get(name) != value:
            yield Kind.FILE, f"{name} of {of} is '{value}', the log says '{said.get(name)}'"
    for name in ("name", "path", "commit", "digest"):
        if terms[name] != entry[name]:
            yield Kind.FILE, f"{name} is not that of its terms"
    if not statement:
        if entry["signature"]:
            yield Kind.FILE, "it has a signature and no statement"
        return
    signed = json.loads(statement)
    if {name: signed[name] for name in about} != about:
        yield Kind.FILE, "it says something else than its signed statement"
    if sorted(one["id"] for one in signed["approved_by"]) != sorted(said.get("approved_by", [])):
        yield Kind.FILE, "its statement names other people than those who agreed on the log"
    if signature_holds(key, OPERATOR_PREFIX + statement.encode(), entry["signature"]) is False:
        yield Kind.BAD_SIGNATURE, "its signature does not hold"
