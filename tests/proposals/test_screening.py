"""The screening task: compare-and-swap, could-not-look, silent workers; two real looks."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from audit import checkpoints
from django.utils import timezone
from django_tasks_db.models import DBTaskResult
from proposals import lifecycle, sandbox_watch, screening, screenings, standing, sweeps
from proposals.acts import Denied
from proposals.models import Screening

from sandbox import reaper
from sandbox.errors import InfrastructureError
from sandbox.report import Outcome


def no_engine(*_: Any, **__: Any) -> Any:
    raise InfrastructureError("no Docker engine answers: start it")


def due() -> None:
    Screening.objects.filter(phase="queued").update(not_before=None)


def test_submitting_enqueues_one_task(world: Any, django_capture_on_commit_callbacks: Any) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        proposal = world.submit()
    (task,) = DBTaskResult.objects.all()
    assert task.args_kwargs["args"] == [proposal.screenings.get().pk]


def test_only_one_worker_gets_it(world: Any) -> None:
    proposal = world.submit()
    queued = proposal.screenings.get()
    assert screenings.claim(queued.pk) is not None
    assert screenings.claim(queued.pk) is None
    assert screening.look.call(queued.pk) == "not to be had"
    assert len(world.entries("screening.started")) == 1


def test_no_engine_is_tried_again_within_a_bound_and_never_passes(
    world: Any, monkeypatch: pytest.MonkeyPatch, refused: Any
) -> None:
    monkeypatch.setattr(screening, "get_backend", no_engine)
    monkeypatch.setattr(screenings, "BACKOFF_SECONDS", (0, 3600, 3600, 3600))
    proposal = world.submit()
    delays = []
    for _ in range(screenings.MAX_ATTEMPTS):
        queued = proposal.screenings.get(phase="queued")
        delays.append(bool(queued.not_before))
        assert screenings.claim(queued.pk) is None or not queued.not_before
        if queued.not_before:
            due()
            screening.look.call(queued.pk)
        else:
            screenings.could_not_look(queued.pk, "no engine")
    proposal.refresh_from_db()
    assert delays == [False, True, True, True]
    assert (proposal.state, proposal.screenings.count()) == ("screening", 4)
    assert set(proposal.screenings.values_list("outcome", flat=True)) == {"could_not_look"}
    assert "given up" in proposal.state_reason
    with refused("wrong_state"):
        world.approve(proposal, "ada")
    lifecycle.rescreen(
        proposal_id=proposal.pk, actor=lifecycle.actor_of(world["ada"]), reason="engine is back"
    )
    world.screen(proposal)
    assert proposal.state == "passed"


@pytest.mark.parametrize("outcome", [Outcome.COULD_NOT_LOOK, Outcome.SKIPPED])
def test_a_check_that_could_not_look_is_no_pass(world: Any, outcome: Outcome) -> None:
    proposal = world.submit()
    done = world.screen(proposal, outcome=outcome)
    assert (done.outcome, proposal.state) == ("could_not_look", "submitted")


def test_a_missing_check_is_no_pass(world: Any) -> None:
    proposal = world.submit()
    report = world.report(proposal)
    few = tuple(c for c in report.checks if c.name != "replay")
    world.screen(proposal, checks=few)
    assert proposal.state == "failed"
    assert "replay is missing" in proposal.state_reason


def test_a_report_about_other_bytes_is_not_taken(world: Any, refused: Any) -> None:
    proposal = world.submit()
    with refused("wrong_digest"):
        world.screen(proposal, digest="0" * 64)
    assert proposal.state == "screening"


def test_a_silent_worker_is_given_up(world: Any, refused: Any) -> None:
    proposal = world.submit()
    queued = proposal.screenings.get()
    screenings.claim(queued.pk)
    assert screenings.give_up_silent() == 0
    assert screenings.progress(queued.pk, "replaying")
    long_ago = timezone.now() - timedelta(hours=1)
    Screening.objects.filter(pk=queued.pk).update(claimed_at=long_ago)
    assert screenings.give_up_silent() == 1
    proposal.refresh_from_db()
    assert (proposal.state, proposal.screenings.count()) == ("submitted", 2)
    assert not screenings.progress(queued.pk, "I am back")
    with refused("wrong_state"):
        screenings.finish(queued.pk, world.report(proposal))


def test_a_sweep_that_somebody_was_faster_than_goes_on(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = world.submit("gentle"), world.submit("gentler")
    for proposal in (first, second):
        screenings.claim(proposal.screenings.get().pk)
    Screening.objects.update(claimed_at=timezone.now() - timedelta(hours=1))
    real = screenings.could_not_look

    def after_a_withdrawal(screening_id: int, words: str) -> Screening:
        if screening_id == first.screenings.get().pk:
            lifecycle.withdraw(proposal_id=first.pk, person=world["linus"], reason="never mind")
        return real(screening_id, words)

    monkeypatch.setattr(screenings, "could_not_look", after_a_withdrawal)
    assert screenings.give_up_silent() == 1
    second.refresh_from_db()
    assert (second.state, second.screenings.count()) == ("submitted", 2)
    assert first.screenings.get().phase == "cancelled"


def test_a_withdrawn_look_ends_as_cancelled(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    proposal = world.submit()
    queued = proposal.screenings.get()

    def withdrawn(*_: Any, **arguments: Any) -> Any:
        lifecycle.withdraw(proposal_id=proposal.pk, person=world["linus"], reason="never mind")
        assert arguments["cancelled"]()
        return world.report(proposal)

    monkeypatch.setattr(screening, "get_backend", lambda _: None)
    monkeypatch.setattr(screening, "screen", withdrawn)
    assert screening.look.call(queued.pk) == "cancelled"
    proposal.refresh_from_db()
    assert (proposal.state, proposal.screenings.get().phase) == ("withdrawn", "cancelled")


def test_a_stopped_worker_gives_its_look_back(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    proposal = world.submit()
    monkeypatch.setattr(screening, "get_backend", lambda _: None)

    def stopped(*_: Any, **__: Any) -> Any:
        screening.stopping.set()
        return world.report(proposal, outcome=Outcome.COULD_NOT_LOOK)

    monkeypatch.setattr(screening, "screen", stopped)
    try:
        assert screening.look.call(proposal.screenings.get().pk) == "could_not_look"
    finally:
        screening.stopping.clear()
    proposal.refresh_from_db()
    assert proposal.state == "submitted"
    assert proposal.screenings.get(phase="queued").attempt == 0, "being stopped does not count"


def test_the_look_of_a_dead_worker_is_taken_up_at_once_and_only_that(
    world: Any, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        dead, alive = world.submit("gentle"), world.submit("gentler")
    host, boot, *_ = reaper.me().split("|")
    owners = {dead.pk: f"{host}|{boot}|4194304|1", alive.pk: reaper.me()}
    for proposal in (dead, alive):
        look = proposal.screenings.get()
        row = DBTaskResult.objects.get(args_kwargs__args=[look.pk])
        row.claim(owners[proposal.pk])
        assert screenings.claim(look.pk)
    assert screening.give_up_dead() == 1
    assert screening.give_up_dead() == 0
    for proposal in (dead, alive):
        proposal.refresh_from_db()
    assert (dead.state, alive.state) == ("submitted", "screening")
    assert "the worker that looked died" in dead.state_reason
    phases = list(dead.screenings.order_by("pk").values_list("phase", "outcome"))
    assert phases == [("done", "could_not_look"), ("queued", "")]


def test_whatever_breaks_while_stopping_gives_the_look_back(
    world: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    proposal = world.submit()

    def stopped(*_: Any, **__: Any) -> Any:
        screening.stopping.set()
        raise InfrastructureError("the pool is closed")

    monkeypatch.setattr(screening, "screen", stopped)
    monkeypatch.setattr(screening, "get_backend", lambda _: None)
    try:
        assert screening.look.call(proposal.screenings.get().pk) == "could_not_look"
    finally:
        screening.stopping.clear()
    assert proposal.screenings.get(phase="queued").attempt == 0
    assert not [r for r in caplog.records if r.levelname == "ERROR"]


def test_the_pages_say_that_the_sandbox_does_not_hold(
    world: Any, settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings.VAR = tmp_path
    monkeypatch.setattr(sandbox_watch, "get_backend", no_engine)
    assert (sandbox_watch.said(), sandbox_watch.watch(), sandbox_watch.watch()) == ("", 1, 0)
    (banner,) = standing.banners()
    assert "nothing is screened" in banner["title"]
    assert "no Docker engine answers" in banner["text"]
    (tmp_path / sandbox_watch.FILE).write_text("{broken")
    assert "can't be read" in sandbox_watch.said()
    monkeypatch.setattr(sandbox_watch, "get_backend", lambda _: None)
    monkeypatch.setattr(sandbox_watch.clearance, "require", lambda _: None)
    assert (sandbox_watch.watch(), standing.banners()) == (1, [])


def test_another_image_or_engine_makes_another_pool(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fake:
        name, image_id = "fake", "x"

        def __init__(self, fingerprint: str) -> None:
            self.fingerprint = fingerprint

        def start(self, **_: Any) -> Any:
            raise InfrastructureError("none here")

    now = ["one"]
    monkeypatch.setattr(screening, "get_backend", lambda _: Fake(now[0]))
    workers = screening.Workers()
    workers.keep_ready = True
    try:
        first = workers.backend()
        assert workers.backend() is first
        now[0] = "two"
        assert workers.backend() is not first
        assert first._closed  # type: ignore[attr-defined]
    finally:
        workers.close()


def test_a_task_that_was_lost_is_enqueued_again(world: Any) -> None:
    world.submit()
    assert screening.enqueue_lost() == 0
    Screening.objects.update(created_at=timezone.now() - timedelta(minutes=1))
    assert screening.enqueue_lost() == 1
    assert screening.enqueue_lost() == 0


def test_bytes_that_changed_in_git_are_not_screened(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposal = world.submit()
    forged = world.repository.commit_draft(
        proposal_id=proposal.pk,
        base=proposal.base_commit,
        files={"mechanisms/gentle.py": b"x = 1\n"},
        name="gentle",
    )
    queued = proposal.screenings.get()
    queued.commit = forged.commit
    with pytest.raises(Denied, match="bytes"):
        screening.draft_of(queued)


def test_each_sweep_can_be_repeated(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    soon = partial(checkpoints.heartbeat, every_seconds=3600)  # no entry is as old as that
    monkeypatch.setattr(checkpoints, "heartbeat", soon)
    world.approved()
    first = sweeps.run_all()
    assert (first["activate approved"], first["anchor"]) == (1, 1)
    again = sweeps.run_all()
    assert set(again.values()) == {0}
    assert world.repository.anchored()


@pytest.mark.engine
def test_the_real_sandbox_passes_an_operator_and_fails_an_inert_one(
    world: Any, engine: Any
) -> None:
    good = world.submit("tabu_long", files=world.tabu("tabu_long", tenure=4))
    assert screening.look.call(good.screenings.get().pk) == "passed"
    good.refresh_from_db()
    done = good.screenings.get()
    assert (good.state, done.verdict["risk"]) == ("passed", "low")
    assert done.report["posture"]
    assert done.evidence_digest
    inert = "from sandbox.mechanism import Mechanism\n\n\nclass Idle(Mechanism):\n    pass\n"
    files = {
        "mechanisms/idle.py": inert,
        "tests/test_idle.py": "def test_nothing():\n    assert True\n",
    }
    bad = world.submit("idle", files=files)
    assert screening.look.call(bad.screenings.get().pk) == "failed"
    bad.refresh_from_db()
    assert bad.state == "failed"
    assert "inert" in bad.state_reason
