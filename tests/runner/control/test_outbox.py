"""The outbox against a platform that answers, half answers, answers nonsense, forgets: in the end
both have the same, and at no moment does the platform have what the journal has not."""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from runner.control.outbox import Outbox
from runner.control.platform_client import PlatformClient, PlatformError, Refused, Unreachable
from runner.loop.reports import trial_report
from runner.protocol import Observed, RunReport, TrialBatch
from runner.storage.drafts import Drafts
from runner.storage.journal import Entry, Journal, Phase, Report
from runner.storage.store import JournalError
from tests.runner.platformserver import FakePlatform


def decided(number: int, metric: float = 1.0) -> Entry:
    return Entry(
        number=number,
        phase=Phase.DECIDED,
        config={"RATE": metric},
        changes={},
        metric=metric,
        status="kept",
        best_metric=metric,
        finished_at=datetime.now(UTC),
    )


def run_report(journal: Journal) -> RunReport:
    return RunReport(
        run_id=journal.run_id,
        task="surface",
        task_digest="5" * 64,
        space={},
        host={},
        prior="p",
        seed=1,
        planned_trials=9,
        started_at=journal.started_at,
    )


class Platform(FakePlatform):
    """The doors without a server: strict about trials, as the real one is."""

    def do(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if path == "trials":
            batch = TrialBatch.model_validate_json(body)
            if batch.run_id not in {run.run_id for run in self.runs}:
                return 409, {"error": "unknown_run", "message": "report the run first"}
            for trial in batch.trials:
                if self.trials.get(trial.number, trial) != trial:
                    return 409, {"error": "conflict", "message": "it has another metric"}
        return super().do(method, path, body)


class Direct(PlatformClient):
    """A client whose requests go straight to the doors; `faults` says what happens to the next."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.faults: list[str] = []

    def _ask(self, method: str, path: str, body: Any, answer: Any, *, attempts: Any = None) -> Any:
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "lost":
            raise Unreachable("it never arrived")
        status, data = 200, json.dumps({"ok": True})
        if fault in {"500", "404"}:
            status, data = int(fault), "<h1>a proxy speaks</h1>"
        else:
            content = body.model_dump_json().encode() if body is not None else b""
            status, found = self.platform.do(method, path.removeprefix("/"), content)
            data = json.dumps(found)
        if fault == "half":
            raise Unreachable("it arrived, the answer did not")
        if status == 200:
            return answer.model_validate_json(data)
        raise self._problem(f"{method} {path}", status, data.encode())


class Sending(RuleBasedStateMachine):
    """Trials are decided, sent, lost on the way; the runner and the platform are restarted, and the
    platform comes back from an older backup."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.platform = Platform()
        self.open()
        self.journal.identify(task="surface", task_digest="5" * 64, seed=1)
        self.journal.set_run_report(run_report(self.journal))
        self.count = 0

    def open(self) -> None:
        self.journal = Journal(Path(self.folder.name))
        self.client = Direct(self.platform)
        self.said: list[str] = []
        self.outbox = Outbox(self.client, self.journal, self.said.append)

    @rule(more=st.integers(1, 3))
    def decide(self, more: int) -> None:
        for _ in range(more):
            self.journal.plan([decided(self.count, float(self.count))], state=None)
            self.count += 1

    @rule()
    def attest(self) -> None:
        Drafts(self.journal).attest(Observed(version=1, state="live", digest="1" * 64))

    @rule(faults=st.lists(st.sampled_from(["", "lost", "half", "500", "404"]), max_size=4))
    def send(self, faults: list[str]) -> None:
        self.client.faults = list(faults)
        try:
            self.outbox.flush()
        except Unreachable:
            assert set(faults) & {"lost", "half", "500", "404"}
        self.client.faults = []

    @rule()
    def kill_runner(self) -> None:
        self.journal.close()
        self.open()

    @rule(keep=st.integers(0, 5), runs=st.booleans())
    def restore_platform(self, keep: int, runs: bool) -> None:
        """From a backup: it has the first trials, or not even the run."""
        kept = {n: t for n, t in self.platform.trials.items() if n < keep} if runs else {}
        self.platform.trials = kept
        if not runs:
            self.platform.runs = []
        self.kill_runner()  # once in the life of a process, it sends all again

    @invariant()
    def the_platform_has_the_first_ones(self) -> None:
        trials = self.platform.trials
        assert sorted(trials) == list(range(len(trials)))
        reports = {e.number: trial_report(e) for e in self.journal.decided()}
        assert all(reports[number] == trial for number, trial in trials.items())

    def teardown(self) -> None:
        if not hasattr(self, "journal"):
            return
        self.journal.plan([decided(self.count)], state=None)  # a restored platform is noticed then
        self.kill_runner()
        self.outbox.flush()
        assert sorted(self.platform.trials) == list(range(self.count + 1))
        assert not any(Drafts(self.journal).backlog().values())
        assert not any("REFUSED" in text for text in self.said)
        self.outbox.flush()
        self.journal.close()
        self.folder.cleanup()


TestSending = Sending.TestCase
TestSending.settings = settings(max_examples=8, stateful_step_count=12, deadline=None)


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    journal = Journal(tmp_path)
    journal.identify(task="surface", task_digest="5" * 64, seed=1)
    journal.set_run_report(run_report(journal))
    return Outbox(Direct(Platform()), journal, lambda _: None)


def test_another_trial_under_the_same_number_ends_the_run(outbox: Outbox) -> None:
    journal, platform = outbox.journal, outbox.client.platform  # type: ignore[attr-defined]
    journal.plan([decided(0)], state=None)
    outbox.flush()
    journal.plan([decided(1), decided(2)], state=None)
    platform.trials[1] = trial_report(decided(1, metric=7.0))  # a copy was faster
    for _ in range(2):  # and again, whenever it is started
        with pytest.raises(JournalError, match=r"another trial 1 .*two processes"):
            outbox.flush()
    assert sorted(platform.trials) == [0, 1]
    assert [entry.number for entry in journal.waiting_trials(9)] == [1, 2]


def test_a_run_that_is_refused_is_sent_again_once_and_then_refused(outbox: Outbox) -> None:
    journal = outbox.journal
    journal.run_report_done(run_report(journal), Report.REFUSED)
    journal.plan([decided(0)], state=None)
    outbox.client.run = lambda _: (_ for _ in ()).throw(  # type: ignore[method-assign]
        Refused("invalid", "this run never fits", 422)
    )
    outbox.flush()
    assert not journal.waiting_trials(9)


def test_only_the_platforms_own_words_are_final() -> None:
    problem = PlatformClient._problem
    own = b'{"error": "not_found", "message": "no such draft"}'
    assert isinstance(problem("GET /x", 404, own), Refused)
    for status in (400, 401, 403, 404, 405, 413, 500):
        found: PlatformError = problem("GET /x", status, b"<h1>nginx</h1>")
        assert isinstance(found, Unreachable)
        assert str(status) in str(found)
