"""Everything that the page of one proposal shows, gathered for one reader.

Reads rows, git and the report; changes nothing and decides nothing. Each part may be missing: a
proposal in screening has no findings yet, and one whose branch can't be read says so loudly.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proposals import branches, diffs, plots, shown
from proposals.models import Proposal, Screening
from proposals.states import FINAL, State
from sandbox import prediction
from sandbox.prediction import Says

SIMILAR = 0.35
ABOUT = ("started_at", "seed", "prior", "torch", "task_digest", "run_id")  # of a measured trace
MAX_ROWS = 400
HAPPY = (
    State.SUBMITTED,
    State.SCREENING,
    State.PASSED,
    State.APPROVED,
    State.ACTIVATING,
    State.LIVE,
)
STEP_WORDS = {
    State.SUBMITTED: "submitted",
    State.SCREENING: "screened",
    State.PASSED: "reviewed",
    State.APPROVED: "approved",
    State.ACTIVATING: "loaded",
    State.LIVE: "live",
}
TELLING = (  # of a diagnosis: what says how the search is stuck; the rest are its counts
    "longest_streak_without_progress", "repeats", "moves_repeated_in_vain", "most_tried",
    "never_tried", "one_direction_only", "failure_share", "baseline", "best", "gain",
    "gain_in_sigma",
)  # fmt: skip
CHECK_WORDS = {
    "draft": "The draft's form",
    "characters": "Hidden characters",
    "imports": "Imports, by syntax tree",
    "bandit": "bandit",
    "dependencies": "Dependencies",
    "secrets": "Keys and passwords in the text",
    "complexity": "Size and complexity",
    "import": "Import in the sandbox",
    "contract": "Contract, judged from outside",
    "unit_tests": "Its own unit tests",
    "replay": "Replay against the null mechanism",
}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One file against another one."""

    title: str
    diff: diffs.FileDiff
    anchors: bool = False  # whether findings link to the lines of this one
    aside: bool = False  # little in common: closed at first


@dataclass(frozen=True, kw_only=True)
class ChangedFile:
    """One file of the draft with everything that it is compared with."""

    item: shown.Item
    path: str
    comparisons: tuple[Comparison, ...]
    lines: int
    is_test: bool


def telling_first(diagnosis: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """A diagnosis in the order of reading: what is wrong, then the counts."""
    order = {name: place for place, name in enumerate(TELLING)}
    return sorted(diagnosis.items(), key=lambda one: (order.get(one[0], len(order)), one[0]))


def steps(proposal: Proposal) -> list[dict[str, str]]:
    """The walk as a stepper: done, now, ahead; a final state that is no success ends it."""
    state = State(proposal.state)
    ended = {
        State.FAILED: 1,
        State.REJECTED: 2,
        State.REFUSED: 4,
        State.WITHDRAWN: 2,
        State.EXPIRED: 2,
    }
    if state in ended or state in {State.SUPERSEDED, State.ROLLED_BACK}:
        reached = HAPPY[: ended.get(state, len(HAPPY))]
        tone = "end" if state in FINAL or state is State.ROLLED_BACK else "now"
        row = [{"word": STEP_WORDS[s], "tone": "done"} for s in reached]
        return [*row, {"word": state.replace("_", " "), "tone": tone}]
    at = HAPPY.index(state)
    tones = [
        "done" if i < at or state is State.LIVE else "now" if i == at else "" for i in range(6)
    ]
    return [
        {"word": _step_word(s, tone), "tone": tone} for s, tone in zip(HAPPY, tones, strict=True)
    ]


def _step_word(state: State, tone: str) -> str:
    now = {
        State.SUBMITTED: "waits for screening",
        State.SCREENING: "in screening",
        State.PASSED: "in review",
        State.APPROVED: "approved, to be activated",
        State.ACTIVATING: "being loaded",
    }
    return now.get(state, STEP_WORDS[state]) if tone == "now" else STEP_WORDS[state]


def changed_files(proposal: Proposal) -> tuple[list[ChangedFile], str]:
    """The draft's files with their comparisons; and why not, where git can't answer."""
    repository = branches.living()
    try:
        changed = repository.changed(proposal.base_commit, proposal.commit)
        library = repository.library(proposal.base_commit)
    except branches.RepositoryError as error:
        return [], str(error)
    files = []
    for path, content in sorted(changed.items()):
        data = content if content is not None else b""
        is_test = path.startswith("tests/")
        item = shown.Item(key=f"file:{path}", digest=shown.digest_of(data), title=path)
        pairs = (
            _test_comparisons(library, proposal, data)
            if is_test
            else _comparisons(library, proposal, data)
        )
        lines = data.count(b"\n")
        files.append(
            ChangedFile(item=item, path=path, comparisons=pairs, lines=lines, is_test=is_test)
        )
    return files, ""


def _comparisons(
    library: Mapping[str, branches.Operator], proposal: Proposal, data: bytes
) -> tuple[Comparison, ...]:
    found = []
    if operator := library.get(proposal.recognised):
        title = f"against the approved operator {operator.name}, whose code it repeats"
        found.append(Comparison(title=title, diff=diffs.compare(operator.source, data)))
    live = next(
        (m for m in library.values() if shown.digest_of(m.source) == proposal.base_digest), None
    )
    whole = Comparison(
        title="the whole new file", diff=diffs.compare(b"", data, context=diffs.WHOLE), anchors=True
    )
    if live is None:
        return (*found, whole)
    near = _similar(live.source, data)
    against = Comparison(
        title=f"against the mechanism that was live: {live.name}",
        diff=diffs.compare(live.source, data, context=diffs.WHOLE),
        anchors=near,
        aside=not near,
    )
    return (*found, against) if near else (*found, whole, against)


def _test_comparisons(
    library: Mapping[str, branches.Operator], proposal: Proposal, data: bytes
) -> tuple[Comparison, ...]:
    operator = library.get(proposal.recognised)
    if operator is not None and operator.test:
        title = f"against the test of the approved operator {operator.name}"
        diff = diffs.compare(operator.test, data, context=diffs.WHOLE)
        return (Comparison(title=title, diff=diff, anchors=True),)
    diff = diffs.compare(b"", data, context=diffs.WHOLE)
    return (Comparison(title="a new file", diff=diff, anchors=True),)


def _similar(old: bytes, new: bytes) -> bool:
    matcher = difflib.SequenceMatcher(None, old.splitlines(), new.splitlines(), autojunk=False)
    return matcher.quick_ratio() >= SIMILAR


def findings_by_check(screening: Screening | None) -> list[dict[str, Any]]:
    """The checks of a report in order, each finding with its item to open."""
    report = screening.report if screening else {}
    checks = []
    for check in report.get("checks", []):
        findings = []
        for index, finding in enumerate(check.get("findings", [])):
            title = f"{finding['severity']}: {finding['rule']} ({check['name']})"
            item = shown.Item(
                key=f"finding:{check['name']}:{index}",
                digest=shown.digest_of(finding),
                title=title,
            )
            findings.append({**finding, "item": item})
        words = CHECK_WORDS.get(check["name"], check["name"])
        missing = check.get("detail", {}).get("missing", [])
        checks.append({**check, "findings": findings, "words": words, "missing": missing})
    return checks


def replay_of(screening: Screening | None) -> dict[str, Any] | None:
    """The replayed effect: totals; for each trace a strip and the rows that changed; the predicted
    gain with its chart. Older reports have no prediction."""
    report = screening.report if screening else {}
    check = next((c for c in report.get("checks", []) if c["name"] == "replay"), None)
    if not check or not check.get("detail", {}).get("traces"):
        return None
    traces = []
    for trace in check["detail"]["traces"]:
        rows = [{**r, "effect": plots.effect_of(r)} for r in trace.get("rows", [])[:MAX_ROWS]]
        about = trace.get("about") or {}
        changed = [r for r in rows if r["effect"]]
        label = (
            f"{trace['name']}: {len(changed)} of {trace['steps']} steps would have been different"
        )
        traces.append(
            {
                **trace,
                "rows": rows,
                "about": [(k, about[k]) for k in ABOUT if about.get(k) not in {None, ""}],
                "changed": changed,
                "label": label,
                "strip": plots.replay_strip(rows, label),
                "narrow_strip": plots.replay_strip(rows, label, plots.NARROW),
            }
        )
    detail = check["detail"]
    return {
        "traces": traces,
        "totals": detail.get("totals", {}),
        "recorded": detail.get("recorded", {}),
        "prediction": _prediction(detail.get("prediction")),
    }


def _prediction(data: dict[str, Any] | None) -> dict[str, Any] | None:
    """The predicted gain for the page: its sentence, its tone, and the chart in two widths."""
    if not data:
        return None
    tones = {Says.BETTER: "good", Says.WORSE: "bad"}
    label = prediction.words(data)
    return {
        **data,
        "label": label,
        "tone": tones.get(data["says"], ""),
        "chart": plots.gain_chart(data, label),
        "narrow_chart": plots.gain_chart(data, label, plots.NARROW),
    }


def headline(proposal: Proposal, screening: Screening | None, approvals: int) -> dict[str, Any]:
    """What the policy says, in one sentence of ours; never a word of the author."""
    state = State(proposal.state)
    if state is State.FAILED:
        return {"tone": "bad", "title": "Failed in screening: nobody may approve it"}
    if screening is None or screening.phase in {"queued", "running"}:
        return {"tone": "warn", "title": "Not judged yet: the screening has not finished"}
    if screening.outcome == "could_not_look":
        return {"tone": "warn", "title": "The screening could not look: this counts as not passed"}
    if not (verdict := screening.verdict):
        return {"tone": "warn", "title": f"The screening is {screening.phase}: there is no verdict"}
    title, tone = _verdict_words(verdict, approvals)
    if state not in {State.PASSED, State.APPROVED}:
        title = f"The policy's verdict was: {title[0].lower()}{title[1:]}"
    return {"tone": tone, "title": title, "reasons": verdict.get("reasons", []), "verdict": verdict}


def _verdict_words(verdict: Mapping[str, Any], approvals: int) -> tuple[str, str]:
    quorum = int(verdict.get("quorum", 0))
    decision = verdict.get("decision")
    if decision == "deny":
        return "Denied by policy: nobody may approve it", "bad"
    if decision == "allow":
        return "The policy may approve this by itself", "auto"
    if decision != "escalate":
        return "The verdict can't be read: nobody may approve it", "bad"
    people = "One person must approve" if quorum == 1 else f"{quorum} people must approve"
    so_far = f"; {approvals} of {quorum} so far" if approvals else ""
    risk = "low risk" if verdict.get("risk") == "low" else "high risk"
    return f"{people} ({risk}){so_far}", "turn"


def items_of(files: list[ChangedFile], checks: list[dict[str, Any]]) -> list[shown.Item]:
    """Everything that must be opened before an approval, in the order of the page."""
    return [f.item for f in files] + [f["item"] for c in checks for f in c["findings"]]
