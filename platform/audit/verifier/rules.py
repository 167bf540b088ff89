"""All rules together, and a log held against them; the platform's rows held against the log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from audit.verifier.chain import Chain
from audit.verifier.changes import Changes
from audit.verifier.library import Operators, Packages
from audit.verifier.result import Kind, Problem, Result
from audit.verifier.signed import Signed, has_form


class Rules(Changes, Operators, Packages):
    """Every rule, and the policy in force with its stop."""

    def _on_policy_loaded(self, data: Mapping[str, Any]) -> None:
        self._policy = dict(data)
        self._fact(f"policy:{data['digest']}", mode=data["mode"], text=data["digest"])

    def _on_autonomy_stopped(self, data: Mapping[str, Any]) -> None:
        self._stops.add(str(data["stop"]))

    def _on_autonomy_released(self, data: Mapping[str, Any]) -> None:
        self._must(self._body["actor"]["kind"] == "person", "only people release a stop")
        self._stops.discard(str(data["stop"]))


def verify(
    *,
    entries: Iterable[tuple[str, Mapping[str, Any]]],
    head: Mapping[str, Any] | None,
    notes: Iterable[str],
    key: str = "",
    anchors: Iterable[str] = (),
) -> Result:
    """Verify a log. `entries` are (bytes as text, stored columns) in stored order; `notes` the
    log's own checkpoints; `anchors` those that others remembered; `key` the pinned public key
    (without one, the key that the head names is used, and `pinned` is False)."""
    chain = Chain()
    for text, stored in entries:
        chain.add(text, stored)
    last = chain.finish()
    if head is not None and not has_form(head):
        chain.say(Kind.HEAD, None, "the head does not have the form of a head")
        head = None
    known = key or (str(head["key"]) if head else "")
    signed = Signed(chain, last=last, key=known)
    signed.head(head)
    sizes = signed.notes(notes, "the checkpoint")
    signed.notes([a for a in anchors if a], "the anchored checkpoint")
    signed.compare(int(head["size"]) if head else 0)
    signed.due(sizes)
    rules = Rules()
    for body in sorted(chain.bodies, key=lambda b: int(b["seq"])):
        rules.read(body)
    return Result(
        entries=len(chain.bodies),
        head=chain.digest(last),
        key=known,
        pinned=bool(key),
        signatures="not checked" if signed.unchecked else "checked",
        problems=[*chain.problems, *rules.problems],
        facts=rules.facts,
    )


def compare_rows(
    facts: Mapping[str, Mapping[str, Any]],
    rows: Iterable[Mapping[str, Any]],
    *,
    kinds: Iterable[str],
) -> list[Problem]:
    """Rows of the platform (each with `of`, and values of that name) against the log's facts.

    `kinds` (`proposal`, `activation` ...) are those of which every one must be among the rows.
    """
    found, seen = [], set()
    for row in rows:
        of = str(row["of"])
        seen.add(of)
        if of not in facts:
            found.append(f"{of} has a row, and the log does not know it")
            continue
        for name, value in row.items():
            said = _flat(facts[of].get(name))
            if name != "of" and said != _flat(value):
                found.append(f"{of}: {name} is '{_flat(value)}', the log says '{said}'")
    complete = set(kinds)
    gone = [of for of in facts if of not in seen and of.partition(":")[0] in complete]
    found += [f"{of} is in the log, and has no row" for of in gone]
    return [Problem(kind=Kind.ROW, seq=None, message=message) for message in found]


def _flat(value: Any) -> str:
    return "" if value is None else str(value)
