"""What contract and replay share: whose fault a candidate is, and findings from failures."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from sandbox.errors import MechanismFailure, Rule
from sandbox.mechanism import Candidate, KnobValue, Trial, View
from sandbox.report import Finding, Severity


class Host(Protocol):
    """One mechanism that answers: `sandbox.host.MechanismHost`."""

    hooks: frozenset[str]

    def propose(self, view: View, count: int, *, seed: int) -> list[Candidate]: ...

    def accept(self, trial: Trial, view: View, *, seed: int) -> bool: ...

    def observe(self, trial: Trial, view: View, *, seed: int) -> None: ...


WHY = {
    Rule.TIMEOUT: "A mechanism is asked between trials of minutes; one that hangs stops the run.",
    Rule.OOM: "A mechanism shares a machine with a training; its memory is limited.",
    Rule.OUTPUT_LIMIT: "Nobody reads megabytes of output; a flood is an attack or a mistake.",
    Rule.PROTOCOL_ERROR: "Answers go through one framed channel. Writing to it by hand is how a "
    "report would be forged, so nothing that such a worker says counts.",
    Rule.CRASHED: "The process ended in the middle of a call. Ending it, also with exit code 0, "
    "passes nothing: the judge waits outside for an answer.",
    Rule.IMPORT_FAILED: "The file can't even be loaded in the sandbox: no network, no files, no "
    "environment, and only the packages of the image.",
    Rule.INTERFACE: "The answer is not what sandbox/mechanism.py asks for; it is checked with "
    "exact types, so that a value can't pretend to be another one.",
    Rule.RAISED: "An exception in a hook stops the decision that the run is waiting for.",
    Rule.TOO_MANY_ASKS: "Each ask costs a call of the language model.",
    Rule.TOO_MANY_CANDIDATES: "More candidates than asked for would be trials nobody planned.",
    Rule.STATE_TOO_LARGE: "The state is stored with every trial.",
}


# What code for another interface says when it takes ours for it.
OFFERED = {
    "View": "A View has trace, best, space, frozen, random, minimize and ask(guidance, count)",
    "Trial": "A Trial has number, config, changes, metric, status, failure and seconds",
    "Candidate": "Write Candidate(changes={...}, reason='...')",
    "Space": "A Space is a mapping of name to Knob, with problems(config)",
    "Knob": "A Knob has kind, low, high, log, choices, default, position(value) and at(position)",
}
MISUSED = re.compile(
    r"^(?:AttributeError|TypeError): (?:'(View|Trial|Candidate|Space|Knob)' object"
    r"|(View|Trial|Candidate|Space|Knob)\.__init__\(\))"
)


@dataclass(frozen=True)
class Fault:
    """What is wrong with a candidate by the mechanism's own doing."""

    rule: str  # OUTSIDE_SPACE, FROZEN_KNOB or CONSTRAINT
    message: str


def seed_of(*parts: object) -> int:
    """A seed from `parts` alone."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:6], "big")


def all_problems(changes: Mapping[str, KnobValue], view: View) -> list[str]:
    """Everything that makes a candidate one that can't be tried."""
    frozen = [n for n in changes if n in view.frozen and changes[n] != view.best.config.get(n)]
    return [f"{n} is frozen" for n in frozen] + view.space.problems(view.config_of(changes))


def own_faults(candidate: Candidate, view: View, answers: Iterable[Candidate]) -> list[Fault]:
    """Faults of a candidate that the mechanism put there itself.

    A value that the prior gave in the same call is the prior's fault: the interface says that its
    answers are unchecked, and the runner refuses what is passed through.
    """
    given = {(n, repr(v)) for answer in answers for n, v in answer.changes.items()}
    own = {n: v for n, v in candidate.changes.items() if (n, repr(v)) not in given}
    faults = []
    for name, value in own.items():
        if name not in view.space:
            faults.append(Fault("OUTSIDE_SPACE", f"{name!r} is no knob of the space"))
        elif name in view.frozen and value != view.best.config.get(name):
            faults.append(Fault("FROZEN_KNOB", f"it changes {name}, which is frozen"))
        elif problem := view.space[name].problem(value):
            faults.append(Fault("OUTSIDE_SPACE", f"{name}: {problem}"))
    # A best configuration that breaks a rule itself can't be, so what is left is between knobs.
    if own and not faults:
        for problem in view.space.problems(view.config_of(own)):
            faults.append(Fault("CONSTRAINT", problem))
    return faults


def failure_finding(
    check: str, failure: MechanismFailure, *, where: str = "", path: str = ""
) -> Finding:
    """A mechanism's failure as a finding that a person understands."""
    rule, told = failure.rule, failure.message
    if rule == Rule.RAISED and (used := MISUSED.search(told)):
        # Only another name for the same failure: the words are the worker's, and prove nothing.
        rule, told = Rule.INTERFACE, f"{told}. {OFFERED[used[1] or used[2]]}"
    line = failure.detail.get("line") or 0
    hook = failure.detail.get("hook") or ""
    place = " ".join(p for p in (f"in {hook}" if hook else "", where) if p)
    message = f"{told}{f' ({place})' if place else ''}"
    return Finding(
        check=check,
        rule=rule,
        severity=Severity.ERROR,
        message=message[:1000],
        path=path,
        line=int(line),
        why=WHY.get(Rule(rule), "") if rule in set(Rule) else "",
    )
