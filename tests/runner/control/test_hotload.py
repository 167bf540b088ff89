"""Hot-load with real sandbox workers and a platform over real HTTP: what runs is what is attested,
and whatever can't be loaded is refused aloud while the earlier mechanism goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.control.hotload import LoadRefused, verify
from runner.control.platform_client import TokenInvalid
from runner.processes.subprocesses import STOPPING, StopRequested
from runner.storage.drafts import Drafts
from runner.storage.journal import Journal
from sandbox.backends.base import Backend
from sandbox.errors import InfrastructureError
from sandbox.report import digest_of
from tests.runner.platformserver import NULL, FakePlatform, serve
from tests.runner.stage import BAD, DATACLASS, FAILS_LATER, HONEST, OTHER, Stage, made, none_left
from tests.runner.waiting import until


@pytest.fixture
def fake() -> Iterator[FakePlatform]:
    with serve() as platform:
        platform.want(NULL)
        yield platform


@pytest.fixture
def stage(fake: FakePlatform, tmp_path: Path, engine: Backend) -> Stage:
    return Stage(fake, tmp_path / "run", lambda: engine)


@pytest.mark.engine
def test_a_swap_at_a_boundary_is_attested_and_loses_nothing(
    stage: Stage, fake: FakePlatform
) -> None:
    stage.at = {2: lambda: fake.want(HONEST, name="made"), 4: lambda: fake.want(NULL)}
    stage.run(6)
    null, honest = digest_of(NULL), digest_of(HONEST)
    assert fake.attested() == [(1, null), (2, honest), (3, null)]
    assert stage.chosen_by() == {1: null, 2: null, 3: honest, 4: honest, 5: null, 6: null}
    assert [fake.trials[n].version for n in (2, 3, 5)] == [1, 2, 3]
    assert fake.trials[3].reason == "call 1"  # the try-out at load left no trace in its state
    assert fake.trials[3].hooks.proposals_changed == 1
    assert fake.trials[3].hooks.ask_calls == 0
    assert fake.trials[1].hooks.proposals_changed == 0
    assert fake.trials[1].hooks.ask_calls == 1
    live = next(o for o in fake.observed if o.state == "live" and o.version == 2)
    assert live.posture["image_id"]
    assert live.at_trial == 3
    assert none_left()


@pytest.mark.engine
def test_a_mechanism_that_comes_back_finds_its_own_state(stage: Stage, fake: FakePlatform) -> None:
    stage.at = {
        1: lambda: fake.want(HONEST, name="made"),
        3: lambda: fake.want(OTHER, name="other"),
        4: lambda: fake.want(HONEST, name="made"),
    }
    stage.run(5)
    reasons = [fake.trials[n].reason for n in (2, 3, 4, 5)]
    assert reasons == ["call 1", "call 2", "call 1", "call 3"]


@pytest.mark.engine
def test_a_dataclass_in_a_mechanism_loads(stage: Stage, fake: FakePlatform) -> None:
    fake.want(DATACLASS, name="made")
    stage.run(1)
    assert fake.attested() == [(2, digest_of(DATACLASS))]


@pytest.mark.engine
@pytest.mark.parametrize("case", list(BAD))
def test_what_cannot_be_loaded_is_refused_and_the_earlier_one_goes_on(
    stage: Stage, fake: FakePlatform, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, why = BAD[case]

    def want_it() -> None:
        if why == "TIMEOUT":  # it never answers, so there is nothing to be patient for
            monkeypatch.setattr("runner.control.hotload.TRY_SECONDS", 3)
        fake.want(source, name="made")

    stage.at = {1: want_it}
    stage.run(2)
    null = digest_of(NULL)
    assert fake.attested() == [(1, null)]  # never live
    assert fake.attested("refused") == [(2, null)]  # and it says what runs instead
    refused = next(o for o in fake.observed if o.state == "refused")
    assert why in refused.reason
    assert stage.chosen_by() == {1: null, 2: null}
    assert any(text.startswith("LOAD REFUSED: version 2") for text in stage.said)
    assert none_left()


@pytest.mark.parametrize(
    ("forged", "why"),
    [
        ({"source": OTHER.decode()}, "wrong digest"),
        ({"digest": digest_of(OTHER), "source": OTHER.decode()}, "wrong signature"),
        ({"signature": "00" * 64}, "wrong signature"),
        ({"signature": "nonsense"}, "wrong signature"),
        ({"version": 9}, "wrong signature"),
        ({"commit": "d" * 40}, "wrong signature"),
        ({"target": "other"}, "wrong target"),
    ],
)
def test_what_was_not_signed_like_this_is_refused(
    fake: FakePlatform, forged: dict[str, Any], why: str
) -> None:
    key = fake.credentials().public_key
    rules: dict[str, Any] = {"target": "demo", "last_version": 1, "last_digest": digest_of(NULL)}
    assert verify(fake.want(HONEST), public_key=key, **rules) == HONEST
    with pytest.raises(LoadRefused, match=why):
        verify(fake.want(HONEST, forged=forged), public_key=key, **rules)
    with pytest.raises(LoadRefused, match="wrong signature"):
        verify(fake.want(HONEST), public_key="0" * 64, **rules)


@pytest.mark.engine
def test_a_forged_desired_state_is_refused_by_the_runner(stage: Stage, fake: FakePlatform) -> None:
    forged = {"digest": digest_of(OTHER), "source": OTHER.decode()}
    stage.at = {1: lambda: fake.want(HONEST, name="made", forged=forged)}
    stage.run(2)
    assert fake.attested() == [(1, digest_of(NULL))]
    assert any(o.state == "refused" and "wrong signature" in o.reason for o in fake.observed)


@pytest.mark.engine
def test_a_replayed_older_version_is_refused_and_a_newer_one_taken(
    stage: Stage, fake: FakePlatform
) -> None:
    old = fake.desired
    new = fake.want(HONEST, name="made")
    stage.at = {
        1: lambda: setattr(fake, "desired", old),
        2: lambda: setattr(fake, "desired", new),
    }
    stage.run(3)
    assert set(stage.chosen_by().values()) == {digest_of(HONEST)}
    assert any(o.state == "refused" and "older version" in o.reason for o in fake.observed)
    assert fake.observed[-2].state == "live"  # the last one says good-bye
    assert fake.observed[-1].state == "idle"


def test_two_mechanisms_for_one_version_are_refused(fake: FakePlatform) -> None:
    desired = fake.want(HONEST, version=3)
    with pytest.raises(LoadRefused, match="two mechanisms"):
        verify(
            desired,
            public_key=fake.credentials().public_key,
            target="demo",
            last_version=3,
            last_digest=digest_of(OTHER),
        )


@pytest.mark.engine
def test_failing_twice_in_production_stops_and_waits_for_another_version(
    stage: Stage, fake: FakePlatform
) -> None:
    fake.want(made(propose=FAILS_LATER), name="made")
    failing = fake.desired
    assert failing is not None

    def roll_back(text: str) -> None:
        stage.said.append(text)
        if text.startswith("MECHANISM GIVEN UP"):
            fake.want(NULL)

    stage.told = roll_back  # type: ignore[method-assign]
    stage.run(6)
    trials = fake.trials
    assert [trials[n].failure for n in (3, 4)] == ["mechanism", "mechanism"]
    assert [trials[n].hooks.raised for n in (3, 4)] == [1, 1]
    assert fake.attested("refused") == [(2, "")]  # nothing ran then
    assert stage.chosen_by()[4] == failing.digest
    assert stage.chosen_by()[5] == digest_of(NULL)


@pytest.mark.engine
def test_failing_twice_in_accept_keeps_the_measurement(stage: Stage, fake: FakePlatform) -> None:
    fake.want(made(accept=FAILS_LATER), name="made")

    def roll_back(text: str) -> None:
        stage.said.append(text)
        if text.startswith("MECHANISM GIVEN UP"):
            fake.want(NULL)

    stage.told = roll_back  # type: ignore[method-assign]
    stage.run(4)
    third = fake.trials[3]
    assert third.metric is not None
    assert third.status == "discarded"
    assert "nobody decided" in third.message
    assert third.hooks.raised == 2
    assert fake.trials[4].digest == digest_of(NULL)


@pytest.mark.engine
def test_without_a_sandbox_nothing_is_loaded(
    fake: FakePlatform, tmp_path: Path, engine: Backend
) -> None:
    tries = 0

    def backend() -> Backend:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise InfrastructureError("no engine answers: start it")
        return engine

    stage = Stage(fake, tmp_path / "run", backend)

    def hear(text: str) -> None:
        stage.said.append(text)
        if text.startswith("waiting:") and "no engine" in text:
            # the heartbeat's thread tells, in its own time
            until(lambda: fake.idle_because("no engine answers"))

    stage.told = hear  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runner.control.platform_link.ENGINE_RETRY_SECONDS", 0.2)
        stage.run(1)
    assert tries > 1
    assert any("NO SANDBOX" in text for text in stage.said)
    assert stage.chosen_by() == {1: digest_of(NULL)}


@pytest.mark.engine
def test_stopped_starts_no_trial_until_released(stage: Stage, fake: FakePlatform) -> None:
    desired = fake.desired
    assert desired is not None

    def stop() -> None:
        fake.desired = desired.model_copy(update={"stopped": True, "stop_reason": "smoke"})

    def release(text: str) -> None:
        stage.said.append(text)
        if text.startswith("waiting: stopped"):
            # the heartbeat's thread tells, in its own time
            until(lambda: any("smoke" in o.activity for o in fake.observed) and 2 in fake.trials)
            assert sorted(fake.trials) == [0, 1, 2]
            fake.desired = desired

    stage.at = {2: stop}
    stage.told = release  # type: ignore[method-assign]
    stage.run(4)
    assert sorted(fake.trials) == [0, 1, 2, 3, 4]
    assert any("STOPPED: smoke" in text for text in stage.said)
    assert any("smoke" in o.activity for o in fake.observed)


@pytest.mark.engine
def test_an_unreachable_platform_stops_no_run_and_loses_nothing(
    stage: Stage, fake: FakePlatform
) -> None:
    stage.at = {2: lambda: setattr(fake, "down", True)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runner.control.backoff.LONGEST_BACKOFF_SECONDS", 0.1)
        stage.run(5)
        assert max(fake.trials, default=0) < 5  # those that were on their way may be missing
        fake.down = False
        stage.run(6)  # the runner is started again
    assert sorted(fake.trials) == list(range(7))
    assert any("PLATFORM UNREACHABLE" in text for text in stage.said)


@pytest.mark.engine
def test_a_stop_survives_a_restart_and_an_unreachable_platform(
    stage: Stage, fake: FakePlatform
) -> None:
    desired = fake.desired
    assert desired is not None
    stage.run(1)
    fake.desired = desired.model_copy(update={"stopped": True, "stop_reason": "smoke"})

    def give_up_waiting(text: str) -> None:
        stage.said.append(text)
        if text.startswith("waiting: stopped"):
            STOPPING.set()

    stage.told = give_up_waiting  # type: ignore[method-assign]
    try:
        with pytest.raises(StopRequested):
            stage.run(2)
        STOPPING.clear()
        fake.down = True
        with pytest.raises(StopRequested):
            stage.run(2)
    finally:
        STOPPING.clear()
    assert sorted(fake.trials) == [0, 1]


@pytest.mark.engine
def test_a_revoked_token_ends_the_run(stage: Stage, fake: FakePlatform) -> None:
    refusal = (401, {"error": "bad_token", "message": "revoked"})
    stage.at = {2: lambda: fake.faults.extend([refusal] * 50)}
    with pytest.raises(TokenInvalid, match="revoked"):
        stage.run(9)
    journal = Journal(stage.folder)
    assert journal.count() in (3, 4)  # what was being trained is kept
    journal.close()


@pytest.mark.engine
def test_a_restart_runs_what_ran_before_and_verifies_it_again(
    stage: Stage, fake: FakePlatform
) -> None:
    fake.want(HONEST, name="made")
    stage.run(2)
    fake.down = True
    stage.run(3)
    journal = Journal(stage.folder)
    last = journal.decided()[-1]
    assert (last.digest, last.reason) == (digest_of(HONEST), "call 3")
    kept = journal.desired()
    assert kept is not None
    journal.remember_desired(kept.model_copy(update={"source": OTHER.decode()}))
    attested = len(Drafts(journal).waiting_attestations())
    journal.close()

    def stop(text: str) -> None:
        if text.startswith("waiting:"):
            STOPPING.set()

    stage.told = stop  # type: ignore[method-assign]
    try:
        with pytest.raises(StopRequested):
            stage.run(4)  # a changed journal is not run either
    finally:
        STOPPING.clear()
    journal = Journal(stage.folder)
    assert journal.count() == 4
    assert len(Drafts(journal).waiting_attestations()) > attested
    journal.close()
