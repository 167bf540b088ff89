"""Desired, attested, refused, rolled back, stopped: the target's side of the lifecycle."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, transaction
from proposals import activations, attestations, branches, lifecycle, sweeps
from proposals.models import Activation, Proposal, Stop
from runs.models import Target

from runner.protocol import Observed


def observed(world: Any, state: str = "live", **more: Any) -> Observed:
    target = world.desired
    values = {"version": target.desired_version, "state": state, "digest": target.desired_digest}
    return Observed.model_validate(values | more)


def observe(world: Any, state: str = "live", **more: Any) -> None:
    world.runner.refresh_from_db()
    lifecycle.observe(runner=world.runner, observed=observed(world, state, **more))


def test_only_the_same_digest_makes_it_live(world: Any, refused: Any) -> None:
    proposal = world.approved()
    lifecycle.activate(proposal_id=proposal.pk)
    with refused("wrong_digest"):
        world.attest(digest="ab" * 32)
    proposal.refresh_from_db()
    assert proposal.state == "activating"
    assert world.desired.live_mechanism == "null"


def test_a_runner_that_falls_back_is_a_refused_load_and_not_live(world: Any, refused: Any) -> None:
    proposal = world.approved()
    lifecycle.activate(proposal_id=proposal.pk)
    null = world.desired.live_digest
    observe_error = pytest.raises(lifecycle.Denied)
    with observe_error as caught:
        observe(world, digest=null)
    assert caught.value.code == "wrong_digest"
    proposal.refresh_from_db()
    assert proposal.state == "refused"
    target = world.desired
    assert (target.desired_mechanism, target.desired_digest) == ("null", null)
    revert = target.activations.get(version=target.desired_version)
    assert (revert.kind, revert.state) == ("revert", "activating")
    observe(world)
    revert.refresh_from_db()
    assert revert.state == "live"
    assert world.entries("activation.refused")[-1]["data"]["digest_running"] == null


def test_a_refused_load_is_told_once_and_goes_back(world: Any) -> None:
    proposal = world.approved()
    lifecycle.activate(proposal_id=proposal.pk)
    version, live = world.desired.desired_version, world.desired.live_digest
    for _ in range(3):
        observe(world, "refused", version=version, digest=live, reason="the worker died")
    proposal.refresh_from_db()
    assert (proposal.state, proposal.state_reason) == ("refused", "the worker died")
    assert len(world.entries("activation.refused")) == 1
    assert world.desired.desired_version == version + 1


def test_a_heartbeat_that_broke_on_our_side_is_news_once_more(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposal = world.approved()
    lifecycle.activate(proposal_id=proposal.pk)
    version, live = world.desired.desired_version, world.desired.live_digest

    def busy(**_: Any) -> None:
        raise OperationalError("database is locked")

    monkeypatch.setattr(attestations, "refuse_load", busy)
    with pytest.raises(OperationalError):
        observe(world, "refused", version=version, digest=live, reason="no\x00engine")
    monkeypatch.undo()
    observe(world, "refused", version=version, digest=live, reason="no\x00engine")
    proposal.refresh_from_db()
    assert (proposal.state, proposal.state_reason) == ("refused", "no\\x00engine")


@pytest.mark.parametrize(
    ("said", "code"), [({"digest": "ab" * 32}, "wrong_digest"), ({"version": 7}, "unknown_version")]
)
def test_what_is_said_wrongly_again_and_again_is_on_the_log_once(
    world: Any, said: dict[str, Any], code: str
) -> None:
    for _ in range(4):
        with pytest.raises(lifecycle.Denied) as caught:
            observe(world, **said)
        assert caught.value.code == code
    assert [e["data"]["code"] for e in world.entries("action.denied")] == [code]


def test_a_refused_rollback_goes_back_and_stops_the_target(world: Any) -> None:
    proposal = world.live()
    world.roll_back(world.target.activations.get(kind="seed"))
    proposal.refresh_from_db()
    assert proposal.state == "rolled_back"
    live = world.desired.live_digest
    observe(world, "refused", digest=live, reason="no engine")
    assert Stop.objects.get().target == world.target
    assert world.desired.desired_digest == live
    proposal.refresh_from_db()
    assert proposal.state == "activating"
    observe(world)
    proposal.refresh_from_db()
    assert proposal.state == "live"


def test_a_refused_seed_stays_desired_and_on_show(world: Any) -> None:
    other = Target.objects.create(name="other")
    lifecycle.seed(target_id=other.pk, mechanism="null")
    world.runner.target = other
    world.runner.save()
    for reason in ("no engine", "no engine", "no image"):
        world.runner.refresh_from_db()
        report = Observed(version=1, state="refused", digest="", reason=reason)
        lifecycle.observe(runner=world.runner, observed=report)
    assert [e["reason"] for e in world.entries("activation.refused")] == ["no engine", "no image"]
    other.refresh_from_db()
    assert (other.desired_version, other.live_version) == (1, 0)


def test_an_attestation_of_an_older_version_changes_nothing(world: Any, refused: Any) -> None:
    proposal = world.approved()
    old = world.desired
    lifecycle.activate(proposal_id=proposal.pk)
    assert world.attest(digest=old.live_digest, version=1) is None
    with refused("unknown_version"):
        world.attest(version=7)
    assert world.desired.live_mechanism == "null"


def test_rollback_needs_no_approval_and_brings_the_same_bytes_back(world: Any) -> None:
    first = world.live("first")
    second = world.live("second", files=world.files("second", cls="Second"))
    first.refresh_from_db()
    assert first.state == "superseded"
    back = world.roll_back(first.activations.get(), by="linus")
    assert back.digest == first.digest
    assert world.desired.live_mechanism == "second"
    world.attest()
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.state, second.state) == ("live", "rolled_back")
    assert world.desired.desired_version == 4
    world.roll_back(second.activations.get(), by="ada")
    world.attest()
    first.refresh_from_db()
    assert first.state == "rolled_back"
    assert world.entries("target.rolled_back")[-1]["actor"]["name"] == "ada"


def test_a_rollback_overtakes_a_load_under_way(world: Any) -> None:
    first = world.live("first")
    second = world.approved("second", files=world.files("second", cls="Second"))
    lifecycle.activate(proposal_id=second.pk)
    world.roll_back(world.target.activations.get(kind="seed"))
    second.refresh_from_db()
    first.refresh_from_db()
    assert (first.state, second.state) == ("live", "rolled_back")
    world.attest()
    first.refresh_from_db()
    assert first.state == "superseded"


def test_what_may_not_be_brought_back(world: Any, refused: Any) -> None:
    seed = world.target.activations.get()
    with refused("wrong_state"):
        world.roll_back(seed)
    proposal = world.approved()
    waiting = lifecycle.activate(proposal_id=proposal.pk)
    with refused("never_live"):
        world.roll_back(waiting)
    world.attest()
    for name in ("eve", "katherine"):
        with refused("not_entitled"):
            world.roll_back(seed, by=name)
    actor = lifecycle.runner_actor(world.runner)
    with refused("not_entitled"):
        lifecycle.roll_back(
            target_id=world.target.pk, activation_id=seed.pk, actor=actor, reason="mine"
        )


def test_one_load_at_a_time(world: Any, refused: Any) -> None:
    first = world.approved("first")
    lifecycle.activate(proposal_id=first.pk)
    second = world.approved("second", files=world.files("second", cls="Second"))
    with refused("busy"):
        lifecycle.activate(proposal_id=second.pk)
    assert sweeps.activate_approved() == 0
    world.attest()
    assert sweeps.activate_approved() == 1


def test_a_token_or_a_stranger_activates_nothing(world: Any, refused: Any) -> None:
    proposal = world.approved()
    with refused("not_entitled"):
        lifecycle.activate(proposal_id=proposal.pk, actor=lifecycle.runner_actor(world.runner))
    with refused("not_entitled"):
        lifecycle.activate(proposal_id=proposal.pk, actor=lifecycle.actor_of(world["eve"]))


def test_a_crash_between_merge_and_record_is_finished_by_the_sweep(
    world: Any, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposal = world.approved()
    merge = branches.Repository.fast_forward

    def crash(self: Any, **arguments: str) -> None:
        merge(self, **arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(branches.Repository, "fast_forward", crash)
    with pytest.raises(KeyboardInterrupt):
        lifecycle.activate(proposal_id=proposal.pk)
    monkeypatch.undo()
    proposal.refresh_from_db()
    assert (proposal.state, world.repository.head()) == ("approved", proposal.commit)
    assert world.desired.desired_mechanism == "null"
    with refused("merging"):
        lifecycle.reject(proposal_id=proposal.pk, person=world["ada"], reason="no")
    assert sweeps.rescreen_stale() == 0
    assert sweeps.activate_approved() == 1
    assert world.desired.desired_digest == proposal.digest
    assert sweeps.activate_approved() == 0


def test_the_desired_version_is_compared_and_swapped(
    world: Any, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposal = world.approved()
    real = activations._merge

    def moved(ledger: Any, subject: Proposal, actor: Any) -> Activation:
        subject.target.desired_version -= 1  # what somebody saw before the other one moved it
        return real(ledger, subject, actor)

    monkeypatch.setattr(activations, "_merge", moved)
    with refused("conflict"):
        lifecycle.activate(proposal_id=proposal.pk)
    assert world.repository.head() == proposal.base_commit


def test_the_database_holds_what_it_can(world: Any) -> None:
    proposal = world.live()
    live = proposal.activations.get()
    same = {
        f: getattr(live, f) for f in ("target", "mechanism", "mechanism_path", "commit", "digest")
    }
    for wrong in (
        {"version": 9, "kind": "approval", "proposal": proposal, "state": "refused"},
        {"version": 2, "kind": "revert", "state": "superseded"},
        {"version": 9, "kind": "revert", "state": "live", "digest_attested": live.digest},
        {"version": 9, "kind": "revert", "state": "live", "digest_attested": "", "target": None},
    ):
        values = {**same, "requested_by": "x", **wrong}
        with pytest.raises(IntegrityError), transaction.atomic():
            Activation.objects.create(**values)


def test_stopping_needs_one_and_releasing_two(world: Any, refused: Any) -> None:
    with refused("not_entitled"):
        lifecycle.stop(person=world["eve"], reason="?", target_id=world.target.pk)
    stop = lifecycle.stop(person=world["linus"], reason="smoke", target_id=world.target.pk)
    assert lifecycle.stop(person=world["ada"], reason="too", target_id=world.target.pk) == stop
    proposal = world.approved()
    with refused("stopped"):
        lifecycle.activate(proposal_id=proposal.pk)
    with refused("not_entitled"):
        lifecycle.release_stop(stop_id=stop.pk, person=world["linus"], reason="fine")
    lifecycle.release_stop(stop_id=stop.pk, person=world["ada"], reason="fine")
    with refused("already_decided"):
        lifecycle.release_stop(stop_id=stop.pk, person=world["ada"], reason="fine")
    with refused("stopped"):
        lifecycle.activate(proposal_id=proposal.pk)
    lifecycle.release_stop(stop_id=stop.pk, person=world["grace"], reason="fine")
    with refused("wrong_state"):
        lifecycle.release_stop(stop_id=stop.pk, person=world["mary"], reason="fine")
    lifecycle.activate(proposal_id=proposal.pk)


def test_a_stopped_target_can_still_go_back(world: Any) -> None:
    world.live()
    lifecycle.stop(person=world["ada"], reason="smoke", target_id=world.target.pk)
    world.roll_back(world.target.activations.get(kind="seed"))
    world.attest()
    assert world.desired.live_mechanism == "null"
