"""Who may approve what: four eyes, binding, quorum, informed review, expiry; all on the log."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from proposals import lifecycle, sweeps
from proposals.models import Proposal, Review, Screening

from sandbox.report import Outcome, Severity


def test_two_people_approve_new_code_and_it_goes_live_as_attested(world: Any) -> None:
    proposal = world.passed()
    world.approve(proposal, "ada")
    assert proposal.state == "passed"
    world.approve(proposal, "grace")
    assert proposal.state == "approved"
    activation = lifecycle.activate(proposal_id=proposal.pk)
    assert world.repository.head() == proposal.commit == activation.commit
    assert world.repository.tree_of(world.repository.head()) == proposal.tree
    assert world.desired.desired_digest == proposal.digest
    assert world.desired.live_mechanism == "null"
    world.attest()
    proposal.refresh_from_db()
    assert (proposal.state, world.desired.live_digest) == ("live", proposal.digest)
    standings = set(proposal.reviews.values_list("standing", "consumed_by"))
    assert standings == {("consumed", activation.pk)}


def test_an_approved_operator_with_changed_parameters_needs_one_person(world: Any) -> None:
    proposal = world.passed("tabu_long", files=world.tabu("tabu_long"))
    assert proposal.recognised == "tabu"
    world.approve(proposal, "ada")
    assert proposal.state == "approved"


def test_a_claim_to_be_an_operator_counts_for_nothing(world: Any) -> None:
    proposal = world.passed(operator="tabu")
    assert proposal.recognised == ""
    assert proposal.screenings.get().verdict["risk"] == "high"


def test_the_requester_may_not_approve(world: Any, refused: Any) -> None:
    files = {path: text.encode() for path, text in world.files("mine").items()}
    proposal = lifecycle.upload(
        person=world["rosa"], target=world.target, files=files, title="Mine"
    )
    world.screen(proposal)
    assert lifecycle.may_approve(world["rosa"], proposal)
    assert lifecycle.may_approve(world["ada"], proposal) == []
    with refused("is_requester"):
        world.approve(proposal, "rosa")
    assert world.entries("review.denied")[-1]["actor"]["name"] == "rosa"


def test_the_operator_of_the_submitting_runner_may_not_approve(world: Any, refused: Any) -> None:
    proposal = world.passed()
    Proposal.objects.filter(pk=proposal.pk).update(requester=world["mary"])
    world["linus"].groups.add(world["ada"].groups.get())
    with refused("is_operator"):
        world.approve(proposal, "linus")
    Proposal.objects.filter(pk=proposal.pk).update(requester=world["linus"])


def test_the_editor_of_the_policy_in_force_may_not_approve(world: Any, refused: Any) -> None:
    world.load_policy(by="mary", title="Mary's")
    proposal = world.passed()
    with refused("edited_policy"):
        world.approve(proposal, "mary")


@pytest.mark.parametrize("name", ["katherine", "linus", "eve"])
def test_who_is_no_reviewer_may_not_decide(world: Any, refused: Any, name: str) -> None:
    proposal = world.passed()
    with refused("not_entitled"):
        world.approve(proposal, name)
    with refused("not_entitled"):
        lifecycle.reject(proposal_id=proposal.pk, person=world[name], reason="no")
    assert not proposal.reviews.exists()


def test_a_superuser_has_no_bypass(world: Any, refused: Any) -> None:
    User.objects.filter(username="eve").update(is_superuser=True, is_staff=True)
    proposal = world.passed()
    world["eve"].refresh_from_db()
    with refused("not_entitled"):
        world.approve(proposal, "eve")


def test_an_inactive_reviewer_may_not_decide(world: Any, refused: Any) -> None:
    proposal = world.passed()
    world["ada"].is_active = False
    world["ada"].save()
    with refused("not_entitled"):
        world.approve(proposal, "ada")


def test_one_person_counts_once(world: Any, refused: Any) -> None:
    proposal = world.passed()
    world.approve(proposal, "ada")
    with refused("already_decided"):
        world.approve(proposal, "ada")
    assert proposal.state == "passed"


def test_approve_needs_everything_opened_as_it_is_now(world: Any, refused: Any) -> None:
    proposal = world.submit()
    world.screen(proposal, findings=(world_finding("B101"),))
    required = lifecycle.shown_required(proposal)
    expected = {"file:mechanisms/gentle.py", "file:tests/test_gentle.py", "finding:imports:0"}
    assert set(required) == expected
    for missing in required:
        with refused("not_shown"):
            world.approve(
                proposal, "ada", shown={k: v for k, v in required.items() if k != missing}
            )
        with refused("not_shown"):
            world.approve(proposal, "ada", shown={**required, missing: "0" * 64})
    world.approve(proposal, "ada")


def world_finding(rule: str) -> Any:
    from sandbox.report import Finding

    return Finding(check="imports", rule=rule, severity=Severity.WARNING, message="m", why="w")


def test_a_decision_has_a_reason(world: Any, refused: Any) -> None:
    proposal = world.passed()
    with refused("no_reason"):
        world.approve(proposal, "ada", reason="  ")
    with refused("no_reason"):
        lifecycle.reject(proposal_id=proposal.pk, person=world["ada"], reason="")
    with refused("too_long"):
        world.approve(proposal, "ada", reason="x" * 5000)


def test_an_approval_of_something_else_is_stale(world: Any, refused: Any) -> None:
    proposal = world.passed()
    with refused("stale"):
        world.approve(proposal, "ada", binding_digest="0" * 64)


def test_an_approval_binds_to_the_policy(world: Any, refused: Any) -> None:
    proposal = world.approved()
    world.load_policy(title="Another")
    with refused("stale"):
        lifecycle.activate(proposal_id=proposal.pk)
    proposal.refresh_from_db()
    assert proposal.state == "passed"
    assert set(proposal.reviews.values_list("standing", flat=True)) == {"voided"}
    assert "policy changed" in world.entries("review.voided")[-1]["reason"]
    with refused("stale"):
        world.approve(proposal, "ada")
    assert sweeps.rescreen_stale() == 1
    proposal.refresh_from_db()
    assert proposal.state == "submitted"
    world.screen(proposal)
    world.approve(proposal, "ada")


def test_an_approval_binds_to_the_base_and_the_draft_is_moved_there_and_judged_again(
    world: Any, refused: Any
) -> None:
    first = world.approved("first")
    second = world.passed("second", files=world.files("second", cls="Second"))
    world.approve(second, "ada")
    old = (second.commit, second.digest)
    lifecycle.activate(proposal_id=first.pk)
    with refused("stale"):
        world.approve(second, "grace")
    assert sweeps.rescreen_stale() == 1
    second.refresh_from_db()
    assert second.base_commit == first.commit == world.repository.parent_of(second.commit)
    assert second.commit != old[0]
    assert second.digest == old[1]
    assert [r.standing for r in second.reviews.all()] == ["voided"]
    world.screen(second)
    world.attest()
    world.approve(second, "ada")
    world.approve(second, "grace")
    lifecycle.activate(proposal_id=second.pk)
    world.attest()
    assert world.desired.live_mechanism == "second"
    assert set(world.repository.library(world.repository.head())) >= {"first", "second", "tabu"}


def test_an_approval_binds_to_the_image(world: Any, refused: Any) -> None:
    proposal = world.approved()
    other = world.submit("other", files=world.files("other", cls="Other"))
    world.screen(other, image_id="sha256:" + "6b" * 32)
    with refused("stale"):
        lifecycle.activate(proposal_id=proposal.pk)


def test_an_approval_binds_to_the_branch(world: Any, refused: Any) -> None:
    proposal = world.approved()
    forged = {"mechanisms/gentle.py": b"forged = 1\n"}
    world.repository.commit_draft(
        proposal_id=proposal.pk, base=proposal.base_commit, files=forged, name="gentle"
    )
    with refused("stale"):
        lifecycle.activate(proposal_id=proposal.pk)
    assert world.repository.head() == proposal.base_commit


def test_an_approver_who_lost_the_role_carries_no_activation(world: Any, refused: Any) -> None:
    proposal = world.approved()
    world["ada"].groups.clear()
    with refused("not_entitled"):
        lifecycle.activate(proposal_id=proposal.pk)
    proposal.refresh_from_db()
    assert proposal.state == "passed"


def test_evidence_grows_old(world: Any, refused: Any) -> None:
    proposal = world.passed()
    old = timezone.now() - timedelta(days=30)
    Screening.objects.filter(proposal=proposal).update(finished_at=old)
    with refused("stale"):
        world.approve(proposal, "ada")


def test_an_approval_expires(world: Any, refused: Any) -> None:
    proposal = world.approved()
    Review.objects.filter(proposal=proposal).update(expires_at=timezone.now())
    with refused("expired"):
        lifecycle.activate(proposal_id=proposal.pk)
    proposal.refresh_from_db()
    assert proposal.state == "passed"
    with refused("wrong_state"):
        lifecycle.activate(proposal_id=proposal.pk)


def test_silence_is_no(world: Any, refused: Any) -> None:
    proposal = world.passed()
    Proposal.objects.filter(pk=proposal.pk).update(expires_at=timezone.now())
    with refused("expired"):
        world.approve(proposal, "ada")
    assert sweeps.expire() == 1
    proposal.refresh_from_db()
    assert proposal.state == "expired"
    with refused("expired"):
        world.approve(proposal, "ada")


def test_one_approval_one_activation(world: Any, refused: Any) -> None:
    proposal = world.live()
    with refused("already_used"):
        lifecycle.activate(proposal_id=proposal.pk)
    with refused("already_used"):
        world.approve(proposal, "ada")
    seed = world.target.activations.get(kind="seed")
    world.roll_back(seed)
    world.attest()
    with refused("already_used"):
        lifecycle.activate(proposal_id=proposal.pk)


def test_one_no_is_enough(world: Any, refused: Any) -> None:
    proposal = world.passed()
    world.approve(proposal, "ada")
    lifecycle.reject(proposal_id=proposal.pk, person=world["grace"], reason="too clever")
    proposal.refresh_from_db()
    assert proposal.state == "rejected"
    assert proposal.state_reason == "too clever"
    with refused("wrong_state"):
        world.approve(proposal, "ada")
    again = world.submit("gentle_two", files=world.files("gentle_two"))
    assert again.similar_to == proposal


def test_nobody_approves_what_was_not_screened_or_did_not_pass(world: Any, refused: Any) -> None:
    proposal = world.submit()
    with refused("wrong_state"):
        world.approve(proposal, "ada")
    world.screen(proposal, outcome=Outcome.FAILED)
    assert proposal.state == "failed"
    with refused("wrong_state"):
        world.approve(proposal, "ada")


def test_what_the_policy_denies_fails_though_every_check_passed(world: Any) -> None:
    world.load_policy(limits__lines=3)
    proposal = world.submit()
    done = world.screen(proposal)
    assert done.outcome == "passed"
    assert proposal.state == "failed"
    assert "the limit is 3" in proposal.state_reason


def test_only_the_requester_withdraws(world: Any, refused: Any) -> None:
    proposal = world.submit()
    with refused("not_entitled"):
        lifecycle.withdraw(proposal_id=proposal.pk, person=world["ada"], reason="no")
    lifecycle.withdraw(proposal_id=proposal.pk, person=world["linus"], reason="a better one comes")
    proposal.refresh_from_db()
    assert proposal.state == "withdrawn"
    assert proposal.screenings.get().phase == "cancelled"


def test_only_owners_load_a_policy(world: Any, refused: Any) -> None:
    with refused("not_entitled"):
        world.load_policy(by="ada")
    with refused("bad_policy"):
        world.load_policy(by="linus", surprise=1)
    with refused("unknown"):
        lifecycle.withdraw(proposal_id=9999, person=world["ada"], reason="?")


def test_a_stranger_may_not_have_it_screened_again(world: Any, refused: Any) -> None:
    proposal = world.passed()
    stranger = lifecycle.actor_of(world["eve"])
    with refused("not_entitled"):
        lifecycle.rescreen(proposal_id=proposal.pk, actor=stranger, reason="again")
    lifecycle.rescreen(
        proposal_id=proposal.pk, actor=lifecycle.actor_of(world["ada"]), reason="again"
    )
