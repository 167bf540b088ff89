"""What a run's end and `drafts` say: each outcome counted by its class, and no terminal moved."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from typer.testing import CliRunner

from runner import summary
from runner.__main__ import app
from runner.interfaces import ResearchDraft, Steering
from runner.protocol import Submitted
from runner.storage.drafts import Drafts, DraftState
from runner.storage.journal import Journal

MADE = ResearchDraft(
    title="Made",
    summary="",
    files={"mechanisms/made.py": "x = 1\n"},
    operator="",
    parameters={},
    diagnosis={},
    rounds=(),
    generator="m",
)
NOTHING = [
    (DraftState.FAILED, "language model, not_json: prose", "not_json"),
    (DraftState.FAILED, "language model, empty: nothing", "empty"),
    (DraftState.REFUSED, "interface: \x1b[2J\nno hook", "interface"),
    (DraftState.NONE, "no mechanism was selected", ""),
]


def run_with_drafts(folder: Path) -> None:
    with closing(Journal(folder)) as journal:
        journal.identify(task="t", task_digest="a" * 64, seed=1)
        drafts = Drafts(journal)
        for number in range(1, len(NOTHING) + 4):
            drafts.due(number)
        due = [d.draft_id for d in drafts.all(DraftState.DUE)]
        for draft_id, (state, reason, rule) in zip(due, NOTHING, strict=False):
            drafts.not_drafted(draft_id, state, reason, generator="m", title="T", rule=rule)
        for draft_id in due[len(NOTHING) :]:
            drafts.drafted(draft_id, MADE, commit="c", digest="d")
        failed, full = due[len(NOTHING) : len(NOTHING) + 2]
        gate = Submitted(draft_id=failed, proposal=7, state="failed", reason="RAISED: it raises")
        drafts.submitted(gate)
        drafts.refused(full, "too_many_open: 5 wait")
        journal.steer(5, Steering(frozen=frozenset(), guidance="", reasons=("failed: no",)))
        journal.steer(10, Steering(frozen=frozenset(), guidance="", reasons=("as it was",)))


def test_each_outcome_is_counted_by_its_class(tmp_path: Path) -> None:
    run_with_drafts(tmp_path)
    assert list(summary.of_end(tmp_path)) == [
        "Level 1.5: 2 times, of which 1 failed and changed nothing",
        "drafts: 3 failed (1 at the gate, 1 empty, 1 not_json), 1 none, "
        "2 refused (1 interface, 1 too_many_open), 1 waiting",
    ]


def test_a_line_for_each_moves_no_terminal(tmp_path: Path) -> None:
    run_with_drafts(tmp_path)
    done = CliRunner().invoke(app, ["drafts", str(tmp_path)])
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[2] == "after trial 3: refused: T: interface:  [2J no hook"
    assert lines[4] == "after trial 5: submitted, proposal 7 is failed: Made: RAISED: it raises"
    assert lines[5] == "after trial 6: refused: Made: too_many_open: 5 wait"
    assert lines[-1].startswith("drafts: ")
