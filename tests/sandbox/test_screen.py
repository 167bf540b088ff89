"""The screening as a whole: order, what is skipped, what a broken engine means, and cleaning up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sandbox import clearance, prediction
from sandbox.backends.base import Backend, Channel
from sandbox.draft import lay_out, load_draft
from sandbox.errors import InfrastructureError
from sandbox.report import Draft, Outcome, Severity
from sandbox.screen import CHECKS, DYNAMIC, STATIC, screen
from sandbox.traces import bundled_traces
from tests.sandbox.leftovers import left_of

SPECIMENS = Path(__file__).parent / "specimens"
TABU = SPECIMENS / "honest/tabu.py"


class Flaky:
    """The real backend, which dies after so many workers."""

    name = "flaky"

    def __init__(self, backend: Backend | None, good: int) -> None:
        self.backend = backend
        self.good = good
        self.started = 0

    @property
    def image_id(self) -> str:
        if self.backend is None:
            raise InfrastructureError("no engine")
        return self.backend.image_id

    @property
    def fingerprint(self) -> str:
        if self.backend is None:
            raise InfrastructureError("no engine")
        return self.backend.fingerprint

    def start(self, **arguments: Any) -> Channel:
        self.started += 1
        if self.backend is None or self.started > self.good:
            raise InfrastructureError("the engine has gone; start it again")
        return self.backend.start(**arguments)

    def reap(self) -> list[str]:
        return []


def outcomes(report: Any) -> dict[str, Outcome]:
    return {c.name: c.outcome for c in report.checks}


def draft_of(source: str) -> Draft:
    return lay_out({"mechanisms/a.py": source.encode()}, require_test=False)


@pytest.mark.engine
def test_all_checks_in_order_and_told(engine: Backend) -> None:
    told: list[str] = []
    draft = load_draft(SPECIMENS / "drafts/honest_tabu")
    library = {"tabu": draft.source.replace(b"TENURE = 8", b"TENURE = 12")}
    report = screen(draft, backend=engine, library=library, progress=told.append)
    assert report.outcome is Outcome.PASSED
    assert [c.name for c in report.checks] == list(CHECKS)
    steps = [words for words in told if words != "examining the sandbox"]  # once in a while
    assert steps == [f"checking: {name}" for name in CHECKS]
    assert report.digest == draft.digest
    assert report.image_id == engine.image_id == report.posture["image_id"]
    assert report.posture["self_report"]["uid"] == 64000
    first = report.check("draft")
    assert first is not None
    assert first.detail["operator"] == "tabu"
    assert json.loads(report.to_json())["outcome"] == "passed"
    assert left_of(engine) == []


@pytest.mark.engine
def test_the_same_draft_gives_the_same_findings_and_effect(
    engine: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction, "LIVE_SECONDS", float("inf"))  # a slow one gets fewer searches
    one, two = (screen(load_draft(TABU), backend=engine) for _ in range(2))
    replay = [r.check("replay") for r in (one, two)]
    assert replay[0] is not None
    assert replay[1] is not None
    assert replay[0].detail == replay[1].detail
    assert one.findings == two.findings


@pytest.mark.engine
def test_without_static_checks_nothing_passes(engine: Backend) -> None:
    report = screen(load_draft(TABU), backend=engine, static=False)
    assert report.outcome is Outcome.COULD_NOT_LOOK
    assert {n for n, o in outcomes(report).items() if o is Outcome.SKIPPED} == set(STATIC)
    assert {outcomes(report)[n] for n in DYNAMIC} == {Outcome.PASSED}


def test_a_static_failure_starts_no_worker() -> None:
    backend = Flaky(None, 0)
    report = screen(draft_of("import socket\n"), backend=backend)
    assert report.outcome is Outcome.FAILED
    assert backend.started == 0
    assert {outcomes(report)[n] for n in DYNAMIC} == {Outcome.SKIPPED}
    errors = {f.check for f in report.findings if f.severity is Severity.ERROR}
    assert errors == {"draft", "imports"}  # all static ones ran


def test_what_can_not_be_read_is_said_once() -> None:
    report = screen(draft_of("def (:\n"), backend=Flaky(None, 0))
    assert [(f.check, f.rule) for f in report.findings] == [("draft", "syntax_error")]
    assert outcomes(report)["imports"] is Outcome.SKIPPED


def test_no_engine_could_not_look() -> None:
    report = screen(load_draft(TABU), backend=Flaky(None, 0))
    assert report.outcome is Outcome.COULD_NOT_LOOK
    assert outcomes(report)["import"] is Outcome.COULD_NOT_LOOK
    assert "could-not-look" in {f.rule for f in report.findings if f.check == "import"}


@pytest.mark.engine
@pytest.mark.parametrize("good", [0, 1, 2])
def test_an_engine_that_dies_half_way_could_not_look(good: int, engine: Backend) -> None:
    clearance.require(engine)  # else the doctor would use the good ones up
    draft = load_draft(SPECIMENS / "drafts/honest_tabu")
    report = screen(draft, backend=Flaky(engine, good))
    assert report.outcome is Outcome.COULD_NOT_LOOK
    # Unit tests and replay run beside the contract: any may be the one that gets the last worker.
    unseen = {n for n, outcome in outcomes(report).items() if outcome is Outcome.COULD_NOT_LOOK}
    assert unseen
    assert unseen <= ({"import"} if good == 0 else {"contract", "unit_tests", "replay"})
    assert left_of(engine) == []


@pytest.mark.engine
@pytest.mark.parametrize("asked", [0, 5, 8, 40])
def test_cancelled_leaves_nothing_running(asked: int, engine: Backend) -> None:
    calls = 0

    def cancelled() -> bool:
        nonlocal calls
        calls += 1
        return calls > asked

    report = screen(load_draft(TABU), backend=engine, cancelled=cancelled)
    assert report.outcome is Outcome.COULD_NOT_LOOK
    assert Outcome.SKIPPED in outcomes(report).values()
    assert left_of(engine) == []


@pytest.mark.engine
def test_an_error_of_ours_leaves_nothing_running(engine: Backend) -> None:
    def progress(text: str) -> None:
        if text == "checking: contract":
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        screen(load_draft(TABU), backend=engine, progress=progress)
    assert left_of(engine) == []


@pytest.mark.engine
def test_further_traces(engine: Backend) -> None:
    report = screen(load_draft(TABU), backend=engine, traces=bundled_traces()[:1])
    replay = report.check("replay")
    assert replay is not None
    assert len(replay.detail["traces"]) == len(bundled_traces()) + 1


class Clinging:
    """A channel whose worker can't be removed, for the engine has gone by then."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def close(self) -> None:
        self._channel.close()
        raise InfrastructureError("the engine does not answer")


@pytest.mark.engine
def test_a_worker_that_can_not_be_removed_passes_nothing(
    engine: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    flaky = Flaky(engine, 100)
    start = flaky.start
    monkeypatch.setattr(flaky, "start", lambda **arguments: Clinging(start(**arguments)))
    clearance.require(engine)
    report = screen(load_draft(TABU), backend=flaky)
    assert report.outcome is Outcome.COULD_NOT_LOOK
    unseen = [f.message for f in report.findings if f.rule == "could-not-look"]
    assert unseen
    assert all("does not answer" in message for message in unseen)
    assert left_of(engine) == []
