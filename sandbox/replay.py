"""Check `replay`: what a mechanism would have decided, next to the null mechanism.

It walks over recorded traces (`sandbox.walk`), where nothing that it answers changes what comes
next: would this step have been different? And it searches by itself (`sandbox.prediction`), where
kept trials and memory have their effect. A mechanism that changes nothing in any of it is `inert`,
whatever it defines; one whose hooks fail is not inert, it fails. The predicted gain is shown, and
nothing is refused for it.
"""

from __future__ import annotations

import ast
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sandbox import prediction
from sandbox.draft import mechanism_classes
from sandbox.errors import MechanismFailure
from sandbox.judging import Host, failure_finding
from sandbox.prediction import Prediction
from sandbox.report import CheckResult, DraftError, Finding, Outcome, Severity, digest_of
from sandbox.syntax import parse
from sandbox.traces import Trace, bundled_traces
from sandbox.walk import Tally, Walk, totals_of

CHECK = "replay"
DECIDING = frozenset({"propose", "accept"})
OUTSIDE_SHARE = 0.34
WHY_INERT = (
    "Code that is never called, or whose answers are those of plain Level 1, would be approved, "
    "activated and credited with results that it has no part in."
)


def check(
    host: Host,
    *,
    source: bytes,
    reload: Callable[[], None],
    traces: Sequence[Trace] = (),
    path: str = "",
    progress: Callable[[], None] = lambda: None,
) -> CheckResult:
    """Walk the bundled traces and those given, then search. Raises InfrastructureError."""
    walks: list[Tally] = []
    live = Prediction(pairs=[], tallies=[])
    findings: list[Finding] = []
    absent = absent_hooks(source)
    try:
        for trace in [*bundled_traces(), *traces]:
            reload()
            walks.append(Tally(name=trace.name, source=trace.source, about=trace.provenance))
            Walk(host, walks[-1], progress, absent=absent).over(trace)
        prediction.predict(
            host,
            digest=digest_of(source),
            reload=reload,
            progress=progress,
            into=live,
            absent=absent,
        )
    except MechanismFailure as failure:
        tallies = [*walks, *live.tallies]
        where = f"{tallies[-1].name}, step {tallies[-1].steps + 1}" if tallies else ""
        findings.append(failure_finding(CHECK, failure, where=where, path=path))
    tallies = [*walks, *live.tallies]
    totals = totals_of(tallies)
    if not findings:
        findings.extend(_judge(host, totals, tallies, source, path))
    failed = any(f.severity is Severity.ERROR for f in findings)
    return CheckResult(
        name=CHECK,
        outcome=Outcome.FAILED if failed else Outcome.PASSED,
        findings=tuple(findings),
        detail={
            "traces": [t.to_data() for t in walks],
            "searches": [t.to_data() for t in live.tallies],
            "recorded": totals_of(walks),
            "totals": totals,
            "prediction": live.to_data(),
        },
    )


def words(totals: Mapping[str, Any]) -> str:
    """What differed, in one line: a step may want several candidates, and may end in a verdict."""
    return (
        f"{totals['decisions_changed']} of {totals['steps']} steps would have gone otherwise "
        f"({totals['proposals_changed']} of {totals['candidates']} candidates, "
        f"{totals['acceptances_changed']} of {totals['verdicts']} verdicts), "
        f"{totals['repeats_avoided']} repeats avoided, {totals['outside']} outside the space"
    )


def _judge(
    host: Host, totals: Mapping[str, Any], tallies: Sequence[Tally], source: bytes, path: str
) -> Iterator[Finding]:
    inert = ""
    if not host.hooks & DECIDING:
        named = f"only {', '.join(sorted(host.hooks))}" if host.hooks else "no hook at all"
        inert = f"it overrides {named}: neither what is tried nor what is kept is its own"
    elif not totals["calls"]["propose_calls"]:
        inert = "none of its hooks was called"
    elif not totals["decisions_changed"]:
        inert = (
            f"its hooks ran in {totals['steps']} steps and changed no decision: every proposal "
            "and every acceptance was the null mechanism's"
        )
    if inert:
        if unused := unused_definitions(source):
            inert += f". Defined and never used: {', '.join(unused)}"
        yield _finding("inert", f"inert: {inert}", WHY_INERT, path)
    own, outside = sum(t.own for t in tallies), sum(t.own_outside for t in tallies)
    if outside:
        share = outside / max(own, 1)
        yield _finding(
            "outside-space",
            f"{outside} of its {own} own candidates can't be tried (outside the space, frozen, or "
            "against a constraint)",
            "Each of them would be a trial lost.",
            path,
            Severity.ERROR if share > OUTSIDE_SHARE else Severity.WARNING,
        )
    if raised := totals["calls"]["raised"]:
        yield _finding(
            "PRIOR_NOT_CHECKED",
            f"propose raised in {raised} steps where the prior's answer was outside the space",
            "The prior's answers are unchecked; a careful mechanism expects that.",
            path,
            Severity.WARNING,
        )


def _finding(
    rule: str, message: str, why: str, path: str, severity: Severity = Severity.ERROR
) -> Finding:
    return Finding(check=CHECK, rule=rule, severity=severity, message=message, path=path, why=why)


def absent_hooks(source: bytes) -> frozenset[str]:
    """Hooks whose name occurs nowhere in a file, comments and texts included, so that no class of
    it can have one. Read here, whatever the worker says of its class; a name that is put together
    at run time is refused by the static checks. Nothing is absent from what can't be read, nor
    where a mechanism inherits from anything but one class (a library's could bring the hook)."""
    try:
        classes = mechanism_classes(parse("mechanism", source))
        if not classes or any(len(c.bases) != 1 or c.keywords for c in classes):
            return frozenset()
        text = unicodedata.normalize("NFKC", source.decode("utf-8"))  # as Python reads names
    except (UnicodeDecodeError, DraftError):
        return frozenset()
    if "\\" in text:  # an escape could spell a name
        return frozenset()
    return frozenset(name for name in ("accept", "observe") if name not in text)


def unused_definitions(source: bytes) -> list[str]:
    """Classes and functions at the top of a file whose names occur nowhere else in it."""
    try:
        tree = parse("mechanism", source)
    except DraftError:
        return []
    named = [n.name for n in tree.body if isinstance(n, (ast.ClassDef, ast.FunctionDef))]
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    mechanisms = {node.name for node in mechanism_classes(tree)}
    return [name for name in named if name not in used and name not in mechanisms][:5]
