"""Guarded mode approves little and records why not; canaries take back what is worse."""

from __future__ import annotations

import json
from typing import Any

import pytest
from audit.models import Entry
from django.db import connection
from proposals import autonomy, canary, lifecycle, sweeps
from proposals.models import Activation, Stop

from runner.protocol import Observed
from sandbox.report import Finding, Severity


def guarded(world: Any, **changes: Any) -> None:
    world.load_policy(mode="guarded", **changes)


def low_risk(world: Any, name: str = "tabu_long", tenure: int = 9) -> Any:
    return world.passed(name, files=world.tabu(name, tenure=tenure))


def test_in_manual_mode_the_policy_does_nothing(world: Any) -> None:
    proposal = low_risk(world)
    assert autonomy.consider_all() == 0
    proposal.refresh_from_db()
    assert (proposal.state, proposal.automatic) == ("passed", {})
    verdict = proposal.screenings.get().verdict
    assert (verdict["decision"], verdict["would"], verdict["quorum"]) == ("escalate", "allow", 1)


def test_in_guarded_mode_the_policy_approves_a_recognised_operator(world: Any) -> None:
    guarded(world)
    proposal = low_risk(world)
    assert autonomy.consider_all() == 1
    proposal.refresh_from_db()
    review = proposal.reviews.get()
    assert (proposal.state, review.reviewer, bool(review.by_policy)) == ("approved", None, True)
    assert sweeps.activate_approved() == 1
    world.attest()
    activation = proposal.activations.get()
    assert (activation.kind, activation.state) == ("policy", "live")
    assert world.entries("review.approved")[-1]["actor"]["kind"] == "policy"


def test_new_code_is_for_people_and_why_is_on_record_once(world: Any) -> None:
    guarded(world)
    proposal = world.passed()
    for _ in range(3):
        assert autonomy.consider_all() == 0
    (entry,) = world.entries("autonomy.declined")
    assert "new code" in entry["reason"]
    proposal.refresh_from_db()
    assert (proposal.state, proposal.automatic["verb"]) == ("passed", "autonomy.declined")


def test_shadow_mode_records_what_it_would_have_done(world: Any) -> None:
    world.load_policy(mode="shadow")
    proposal = low_risk(world)
    world.passed("other", files=world.files("other"))
    assert autonomy.consider_all() == 0
    told = [e["data"]["reasons"][0] for e in world.entries("autonomy.shadowed")]
    assert told == ["would have approved", "would not have approved (escalate)"]
    proposal.refresh_from_db()
    assert proposal.state == "passed"


def test_a_warning_is_for_people(world: Any) -> None:
    guarded(world)
    proposal = world.submit("tabu_long", files=world.tabu("tabu_long"))
    warning = Finding(check="imports", rule="odd", severity=Severity.WARNING, message="m")
    world.screen(proposal, findings=(warning,))
    assert autonomy.consider_all() == 0
    assert "odd" in world.entries("autonomy.declined")[-1]["reason"]


def test_the_budget_in_a_row_ends_and_a_person_renews_it(world: Any) -> None:
    guarded(world, budgets__automatic_in_a_row=1)
    first = low_risk(world, "one", 7)
    second = low_risk(world, "two", 8)
    assert autonomy.consider_all() == 1
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.state, second.state) == ("approved", "passed")
    assert "in a row" in world.entries("autonomy.declined")[-1]["reason"]


def test_the_budget_of_a_day_ends(world: Any) -> None:
    guarded(world, budgets__automatic_a_day=0)
    low_risk(world)
    assert autonomy.consider_all() == 0


def test_the_kill_switch_stops_it_even_between_approval_and_activation(
    world: Any, refused: Any
) -> None:
    guarded(world)
    proposal = low_risk(world)
    assert autonomy.consider_all() == 1
    lifecycle.stop(person=world["linus"], reason="enough")
    with refused("stopped"):
        lifecycle.activate(proposal_id=proposal.pk)
    proposal.refresh_from_db()
    assert proposal.state == "passed"
    other = low_risk(world, "other", 8)
    with refused("not_entitled"):
        lifecycle.approve_by_policy(proposal_id=other.pk, log_problem="")


def test_past_its_expiry_a_policy_is_manual(world: Any) -> None:
    guarded(world, expires="2020-01-01")
    proposal = low_risk(world)
    assert autonomy.consider_all() == 0
    assert "expired" in proposal.screenings.get().verdict["reasons"][0]
    world.approve(proposal, "ada")
    assert proposal.state == "approved"


def test_a_log_that_does_not_verify_approves_nothing(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded(world)
    proposal = low_risk(world)
    monkeypatch.setattr(autonomy, "log_problem", lambda: "entry 3 was edited")
    assert autonomy.consider_all() == 0
    proposal.refresh_from_db()
    assert proposal.state == "passed"
    assert "entry 3 was edited" in world.entries("autonomy.declined")[-1]["reason"]


def test_the_log_is_really_verified(world: Any) -> None:
    assert autonomy.log_problem() == ""
    from audit import triggers

    row = Entry.objects.get(seq=3)
    triggers.remove(connection)
    body = json.loads(row.body)
    body["reason"] = "forged"
    Entry.objects.filter(seq=3).update(body=json.dumps(body, separators=(",", ":")))
    assert autonomy.log_problem() != ""
    Entry.objects.filter(seq=3).update(body=row.body)
    triggers.install(connection)


# --- canaries --------------------------------------------------------------------------------


def canary_of(world: Any) -> tuple[str, list[str]]:
    live = Activation.objects.filter(kind="approval").latest("pk")
    return live.canary.get("judgement", "wait"), live.canary.get("reasons", [])


def test_a_regression_is_taken_back_by_itself(world: Any) -> None:
    world.trials([1.00, 1.01, 0.99, 1.02, 0.98, 1.0])
    proposal = world.live()
    world.trials([1.9, 1.8, 1.95, 1.85, 1.9], proposals_changed=1)
    assert canary.judge_canaries() == 0
    world.trials([1.9], proposals_changed=1)
    assert canary.judge_canaries() == 1
    proposal.refresh_from_db()
    assert proposal.state == "rolled_back"
    assert "regression" in canary_of(world)[1][0]
    target = world.desired
    back = target.activations.get(version=target.desired_version)
    assert (back.kind, back.mechanism) == ("auto_rollback", "null")
    assert world.entries("target.rolled_back")[-1]["actor"]["kind"] == "system"
    world.attest()
    assert canary.judge_canaries() == 0


def test_where_nothing_was_live_before_the_target_is_stopped_once(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.trials([1.0, 1.1, 0.9])
    world.live()
    world.trials([1.0] * 8, propose_calls=1)
    monkeypatch.setattr(canary, "predecessor", lambda _: None)
    assert (canary.judge_canaries(), canary.judge_canaries()) == (1, 0)
    stop = Stop.objects.get()
    assert stop.target == world.target
    assert "nothing was live before it: no effect" in stop.reason


def test_a_best_that_is_held_and_worse_is_a_regression(world: Any) -> None:
    world.trials([1.0, 1.2, 1.1], best=1.0)
    world.live()
    world.trials([1.3] * 6, best=1.2, acceptances_changed=1)
    canary.judge_canaries()
    assert canary_of(world)[0] == "take_back"


def test_without_effect_it_is_taken_back(world: Any) -> None:
    world.trials([1.0, 1.1, 0.9])
    world.live()
    world.trials([1.0] * 7, propose_calls=1)
    assert canary.judge_canaries() == 0
    world.trials([1.0], propose_calls=1)
    canary.judge_canaries()
    assert canary_of(world) == ("take_back", ["no effect: not one decision changed in 8 trials"])


def test_an_error_or_failures_take_it_back_at_once(world: Any) -> None:
    world.trials([1.0, 1.1, 0.9])
    world.live("first")
    world.trials([1.0], raised=1, proposals_changed=1)
    canary.judge_canaries()
    assert "raised" in canary_of(world)[1][0]
    world.attest()
    world.live("second", files=world.files("second", cls="Second"))
    world.trials([None, None, None], proposals_changed=1)
    canary.judge_canaries()
    assert "failed" in canary_of(world)[1][0]


def test_a_good_one_is_kept(world: Any) -> None:
    world.trials([1.0, 1.1, 0.9, 1.05])
    proposal = world.live()
    world.trials([0.9, 0.8, 0.85, 0.9, 0.8, 0.9, 0.85, 0.9], best=0.8, proposals_changed=1)
    canary.judge_canaries()
    proposal.refresh_from_db()
    assert (canary_of(world)[0], proposal.state) == ("keep", "live")
    assert "sigma (95 %" in proposal.activations.get().canary["gain"]
    assert canary.judge_canaries() == 0


def test_what_was_kept_is_still_taken_back_when_it_breaks(world: Any) -> None:
    world.trials([1.0, 1.1, 0.9, 1.05])
    world.live()
    world.trials([0.9, 0.8, 0.85, 0.9, 0.8, 0.9, 0.85, 0.9], best=0.8, proposals_changed=1)
    canary.judge_canaries()
    assert canary_of(world)[0] == "keep"
    world.trials([0.9], best=0.8, raised=1, proposals_changed=1)
    assert canary.judge_canaries() == 1
    assert (canary_of(world)[0], "raised" in canary_of(world)[1][0]) == ("take_back", True)


def test_what_its_runner_gave_up_is_taken_back_without_a_trial(world: Any) -> None:
    proposal = world.live()
    live = proposal.activations.get()
    given_up = Observed(version=live.version, state="refused", digest="", reason="it hangs")
    lifecycle.observe(runner=world.runner, observed=given_up)
    assert canary.judge_canaries() == 1
    assert "gave it up: it hangs" in canary_of(world)[1][0]
    proposal.refresh_from_db()
    assert proposal.state == "rolled_back"


def test_what_the_policy_approved_and_had_to_go_stops_autonomy(world: Any) -> None:
    guarded(world)
    low_risk(world)
    autonomy.consider_all()
    sweeps.activate_approved()
    world.attest()
    world.trials([1.0], raised=2, proposals_changed=1)
    canary.judge_canaries()
    assert Stop.objects.get(scope="autonomy").released_at is None
    assert world.desired.desired_mechanism == "null"


def test_a_crash_between_judging_and_rolling_back_loses_neither(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.live()
    world.trials([1.0], raised=1, proposals_changed=1)

    def crash(**_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(canary, "roll_back", crash)
    with pytest.raises(KeyboardInterrupt):
        canary.judge_canaries()
    monkeypatch.undo()
    canary.judge_canaries()
    assert world.desired.desired_mechanism == "null"
