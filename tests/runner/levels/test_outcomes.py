"""What Level 2 did is reported with the run: what came of each look, when, and by whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.control.local import Local
from runner.interfaces import PriorError, ResearchContext, ResearchDraft
from runner.levels.level2 import Base, Level2
from runner.loop.search import Plan, Search
from runner.protocol import LEVEL2_OUTCOMES, Level2Report
from runner.storage.drafts import Drafts
from runner.storage.journal import Journal, Report
from tests.runner.surface import SurfaceTask, WalkPrior

HOSTILE = "<script>alert(1)</script>"


class InTurn:
    """A researcher that drafts, selects nothing, and fails, in turn."""

    label = "test model"

    def __init__(self) -> None:
        self.looks = 0

    def draft(self, context: ResearchContext, progress: object = None) -> ResearchDraft | None:
        self.looks += 1
        if self.looks == 1:
            return ResearchDraft(
                title=HOSTILE,
                summary="",
                files={"mechanisms/made.py": "x = 1\n"},
                operator="",
                parameters={},
                diagnosis={},
                rounds=(),
                generator=self.label,
            )
        if self.looks == 2:
            return None
        raise PriorError(f"half JSON {HOSTILE} {'x' * 5000}")


def told(journal: Journal) -> Level2Report:
    report = journal.waiting_run_report()
    assert report is not None
    assert report.level2 is not None
    return report.level2


def search(folder: Path, *, level2: bool) -> tuple[Search, Journal]:
    journal, task = Journal(folder), SurfaceTask()
    journal.identify(task=task.name, task_digest=task.digest, seed=2)
    outer = None
    if level2:
        outer = Level2(
            journal=journal,
            task=task,
            researcher=InTurn(),
            base=lambda: Base(commit="", library=()),
            every=2,
            say=lambda _: None,
            news=lambda: None,
        )
    loop = Search(
        journal=journal,
        task=task,
        prior=WalkPrior(),
        control=Local(journal),
        plan=Plan(trials=7),
        say=lambda _: None,
        outer=outer,
    )
    if outer is not None:
        outer.news = loop.report_again
    return loop, journal


def test_every_outcome_is_reported_with_the_run(tmp_path: Path) -> None:
    loop, journal = search(tmp_path, level2=True)
    loop.run()
    found = told(journal)
    assert found.looks == 3
    assert [(o.after_trial, o.outcome) for o in found.outcomes] == [
        (2, "drafted"),
        (4, "none_selected"),
        (6, "failed"),
    ]
    drafted, nothing, failed = found.outcomes
    assert (drafted.title, drafted.reason) == (HOSTILE, "")
    assert "no mechanism was selected" in nothing.reason
    assert failed.reason.startswith("half JSON")
    assert len(failed.reason) == 1000
    assert {o.generator for o in found.outcomes} == {"test model"}
    times = [o.at for o in found.outcomes if o.at is not None]
    assert len(times) == 3
    assert times == sorted(times)
    journal.close()


def test_a_run_without_level_2_says_so(tmp_path: Path) -> None:
    loop, journal = search(tmp_path, level2=False)
    loop.run()
    report = journal.waiting_run_report()
    assert report is not None
    assert report.level2 is None
    journal.close()


def test_the_latest_outcomes_alone_are_told_and_all_are_counted(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.identify(task="t", task_digest="a" * 64, seed=1)
    drafts = Drafts(journal)
    for after in range(LEVEL2_OUTCOMES + 7):
        drafts.due(after)
    found = drafts.level2()
    assert found.looks == LEVEL2_OUTCOMES + 7
    assert [o.after_trial for o in found.outcomes] == list(range(7, LEVEL2_OUTCOMES + 7))
    assert {(o.outcome, o.at) for o in found.outcomes} == {("drafting", None)}
    journal.close()


@pytest.mark.parametrize("state", ["finished", "stopped", "failed"])
def test_what_comes_late_does_not_change_how_the_run_ended(tmp_path: Path, state: str) -> None:
    loop, journal = search(tmp_path, level2=True)
    loop.run()
    loop.report(state)  # type: ignore[arg-type]
    report = journal.waiting_run_report()
    assert report is not None
    journal.run_report_done(report, Report.SENT)
    Drafts(journal).due(8)
    loop.report_again()
    late = journal.waiting_run_report()
    assert late is not None
    assert late.state == state
    assert told(journal).outcomes[-1].outcome == "drafting"
    journal.close()
