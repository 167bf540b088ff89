"""Level 2 beside a search whose runner is killed: what was begun goes on with its answers."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.interfaces import ResearchContext, ResearchDraft
from runner.levels.research import OpenAIResearcher
from runner.llm.client import Llm
from runner.llm.ledger import Ledger
from runner.storage.drafts import Drafts, DraftState
from runner.storage.store import JournalClosed
from sandbox.errors import InfrastructureError
from tests.runner.levels.test_research import CRITICISED, EXPLORED, SOURCE, SPECIFIED, generated
from tests.runner.llmserver import serving
from tests.runner.loop.test_search import Drafting, made, with_level2


class Dying(Drafting):
    """Keeps an answer, and dies in the middle of its first draft."""

    def __init__(self) -> None:
        super().__init__(made)
        self.died = threading.Event()

    def draft(self, context: ResearchContext, progress: Any = None) -> ResearchDraft | None:
        draft = super().draft(context, progress)
        assert context.memo is not None
        if context.memo.get("answer") is None:
            context.memo.put("answer", {"text": "kept"})
            self.died.set()
            raise JournalClosed("killed")
        return draft


def test_a_draft_goes_on_where_a_killed_runner_was(tmp_path: Path) -> None:
    researcher = Dying()
    loop, journal = with_level2(tmp_path, researcher, 4)
    with closing(journal):
        assert loop.outer is not None
        loop.outer.finish = lambda: None  # type: ignore[method-assign]
        loop.run()
        assert researcher.died.wait(60)
    again, journal = with_level2(tmp_path, researcher, 4)
    with closing(journal):
        assert [d.state for d in Drafts(journal).all()] == [DraftState.DUE]
        again.run()  # all trials are done: the draft is what is left
        first, second = researcher.seen
        assert replace(first, memo=None) == replace(second, memo=None)
        assert [d.state for d in Drafts(journal).all()] == [DraftState.LOCAL]
        query = "SELECT key FROM meta WHERE key LIKE 'drafting/%'"
        assert not journal.store.rows(query)  # what is done leaves nothing behind


def test_what_was_refused_meanwhile_is_not_submitted(tmp_path: Path) -> None:
    answers = [EXPLORED, CRITICISED, SPECIFIED]
    near = SOURCE.replace("ASKS", "TIMES")
    texts = [*answers, generated(), *answers, generated("second_2", source=near)]
    with serving(*texts) as server:
        llm = Llm(base_url=server.url, model="m", api_key="", ledger=Ledger(cap_tokens=10**7))
        researcher = OpenAIResearcher(llm, metric="loss")
        loop, journal = with_level2(tmp_path, researcher, 6)
        with closing(journal):
            loop.run()
            drafts = Drafts(journal).all()
    assert [d.state for d in drafts] == [DraftState.LOCAL, DraftState.REFUSED]
    assert "the draft 'second', nearly the same, is local" in drafts[1].reason


def test_no_room_for_what_people_read_pauses_the_run_and_loses_no_draft(tmp_path: Path) -> None:
    loop, journal = with_level2(tmp_path, Drafting(made), 4)
    with closing(journal):
        (journal.folder / "drafts").write_text("in the way")
        with pytest.raises(InfrastructureError, match="make room, or mend"):
            loop.run()
        (journal.folder / "drafts").unlink()
    again, journal = with_level2(tmp_path, Drafting(made), 4)
    with closing(journal):
        again.run()
        assert [d.state for d in Drafts(journal).all()] == [DraftState.LOCAL]
