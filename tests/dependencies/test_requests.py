"""Requests for packages: who may, what binds, what the states and the database refuse."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from dependencies import adopted, builds, decisions, verbs, work
from dependencies.models import DependencyRequest, DependencyReview, LockVersion
from dependencies.states import FINAL, OPEN, TRANSITIONS, State
from django.db import IntegrityError, transaction
from django.utils import timezone

from sandbox import lock as locks
from sandbox.errors import InfrastructureError

pytestmark = pytest.mark.django_db


def test_every_state_but_the_last_ones_leads_on() -> None:
    leads = {before for before, _ in TRANSITIONS}
    assert leads | FINAL == set(State)
    assert not leads & FINAL
    assert leads >= OPEN


def test_asking_changes_nothing_but_the_request(packages: Any, world: Any) -> None:
    before = locks.current().digest
    request = packages.recorded()
    assert request.state == "in_review"
    assert request.record["wheels"][0]["package"] == "tiny"
    assert request.record["modules"] == {"tiny": ["LIMIT"]}
    assert (request.lock_before, locks.current().digest) == (before, before)
    assert LockVersion.objects.count() == 0
    assert "tiny==1.0" in request.record["diff"]
    (told,) = world.entries("dependency.recorded")
    assert told["data"]["record_digest"] == request.record_digest


def test_four_eyes(packages: Any, world: Any, refused: Any) -> None:
    request = packages.recorded(by="rosa")
    for person, code in (
        ("rosa", "is_requester"),
        ("linus", "not_entitled"),
        ("eve", "not_entitled"),
    ):
        with refused(code):
            packages.approve(request, person)
    packages.approve(request, "ada")
    assert request.state == "in_review", "one is not the quorum"
    with refused("already_decided"):
        packages.approve(request, "ada")
    packages.approve(request, "grace")
    assert request.state == "approved"


def test_who_edited_the_policy_may_not_approve_under_it(
    packages: Any, world: Any, refused: Any
) -> None:
    world.load_policy(by="mary")
    request = packages.recorded()
    with refused("edited_policy"):
        packages.approve(request, "mary")


def test_the_database_refuses_an_approval_of_ones_own(packages: Any, world: Any) -> None:
    request = packages.recorded(by="rosa")
    mine = DependencyReview(
        request=request,
        reviewer=world["rosa"],
        asked_by=world["rosa"],
        decision="approve",
        reason="r",
        binding={},
        binding_digest="d",
        expires_at=timezone.now(),
    )
    with pytest.raises(IntegrityError, match="nobody_approves"), transaction.atomic():
        mine.save()


def test_the_database_refuses_two_open_twins_and_two_builds(packages: Any) -> None:
    request = packages.approved()
    twin = DependencyRequest.objects.get(pk=request.pk)
    twin.pk = None
    with pytest.raises(IntegrityError), transaction.atomic():
        twin.save()
    one, two = (
        DependencyRequest.objects.create(
            requester=request.requester,
            package="a",
            version=str(number),
            reason="r",
            expires_at=timezone.now(),
            record_digest="r",
            lock_before="b",
            lock_after="a",
        )
        for number in (1, 2)
    )
    rows = DependencyRequest.objects.filter(pk__in=[one.pk, two.pk])
    with pytest.raises(IntegrityError), transaction.atomic():
        rows.update(state="building")
    DependencyRequest.objects.filter(pk__in=[one.pk, two.pk]).delete()


@pytest.mark.parametrize(
    ("pin", "modules", "code"),
    [
        ("tiny", "", "invalid"),
        ("tiny>=1", "", "invalid"),
        ("--index-url=x==1", "", "invalid"),
        ("tiny==1.0", "os.path", "invalid"),
        ("tiny==1.0", "tiny: _hidden", "invalid"),
        ("tiny==1.0", "tiny:", "invalid"),
        ("tiny==1.0", "x" * 9000, "too_long"),
    ],
)
def test_what_is_no_request(packages: Any, refused: Any, pin: str, modules: str, code: str) -> None:
    with refused(code):
        packages.ask(pin, modules=modules)
    assert not DependencyRequest.objects.exists()


def test_names_are_normalised_so_that_one_package_has_one_request(
    packages: Any, refused: Any
) -> None:
    packages.ask("Scikit_Image==1.0", modules="")
    with refused("name_exists"):
        packages.ask("scikit-image==1.0", by="rosa", modules="")


def test_an_approval_binds_to_what_was_shown(packages: Any, world: Any, refused: Any) -> None:
    request = packages.recorded()
    with refused("stale"):
        packages.approve(request, "ada", binding_digest="0" * 64)
    packages.approve(request, "ada")
    world.load_policy(dependencies__quorum=3)
    work.refresh()
    request.refresh_from_db()
    (review,) = request.reviews.all()
    assert (review.standing, request.state) == ("voided", "in_review")
    for person in ("ada", "grace", "rosa"):
        packages.approve(request, person)
    assert request.state == "approved"


def test_a_policy_that_changes_after_the_approval_voids_it(packages: Any, world: Any) -> None:
    request = packages.approved()
    world.load_policy(dependencies__unknown_licence="deny")
    assert builds.begin(request.pk) is None
    work.refresh()
    request.refresh_from_db()
    assert request.state == "in_review"
    assert {r.standing for r in request.reviews.all()} == {"voided"}


@pytest.mark.parametrize(
    ("rule", "value", "words"),
    [
        ("not_scanned", "deny", "not scanned"),
        ("licences", ["BSD-3-Clause"], "not among the allowed"),
    ],
)
def test_what_the_policy_forbids_nobody_approves(
    packages: Any, world: Any, *, refused: Any, rule: str, value: Any, words: str
) -> None:
    world.load_policy(**{f"dependencies__{rule}": value})
    request = packages.recorded()
    with refused("denied_by_policy"):
        packages.approve(request, "ada")
    assert any(words in line for line in decisions.may_approve(world["ada"], request))


def test_an_unknown_licence_is_shown_and_can_be_forbidden(
    packages: Any, world: Any, refused: Any
) -> None:
    packages.index.add("bare", "1.0", licence="")
    request = packages.recorded("bare==1.0", modules="bare")
    assert any("licence of bare is not stated" in p for p in request.record["problems"])
    world.load_policy(dependencies__unknown_licence="deny")
    with refused("denied_by_policy"):
        packages.approve(request, "ada")


def test_rejecting_withdrawing_and_silence_end_it(packages: Any, world: Any, refused: Any) -> None:
    request = packages.recorded()
    packages.approve(request, "ada")
    with refused("no_reason"):
        decisions.reject(request_id=request.pk, person=world["grace"], reason=" ")
    decisions.reject(request_id=request.pk, person=world["grace"], reason="numpy can do it")
    request.refresh_from_db()
    assert request.state == "rejected"
    assert {r.standing for r in request.reviews.filter(decision="approve")} == {"voided"}
    again = packages.recorded()
    with refused("not_entitled"):
        verbs.withdraw(request_id=again.pk, person=world["rosa"], reason="no")
    verbs.withdraw(request_id=again.pk, person=world["linus"], reason="not needed")
    last = packages.recorded()
    DependencyRequest.objects.filter(pk=last.pk).update(
        expires_at=timezone.now() - timedelta(seconds=1)
    )
    with refused("expired"):
        packages.approve(last, "ada")
    work.refresh()
    last.refresh_from_db()
    assert last.state == "expired"
    assert locks.site() is None


def test_adopting_changes_the_lock_and_uses_the_approvals_up(
    packages: Any, world: Any, refused: Any
) -> None:
    request = packages.approved()
    lock = packages.built(request)
    assert (request.state, lock.generation) == ("adopted", 2)
    assert {r.standing for r in request.reviews.all()} == {"consumed"}
    assert locks.current().digest == request.lock_after == adopted.digest_in_force()
    assert locks.current().version_of("tiny") == "1.0"
    assert world.repository.kept_lock() == lock.text.encode()
    assert [v.kind for v in LockVersion.objects.order_by("generation")] == ["seed", "adoption"]
    with refused("wrong_state"):
        builds.adopt(
            request_id=request.pk, built=builds.Built(image_id="i", image_name="n", sbom="")
        )
    adopted.require()


def test_a_second_request_is_judged_against_the_new_lock(packages: Any) -> None:
    packages.index.add("other", "2.0", {"other/__init__.py": "A = 1\n"})
    waiting = packages.approved("other==2.0", modules="other")
    packages.built(packages.approved())
    assert builds.begin(waiting.pk) is None, "it was judged against the lock before"
    work.refresh()
    waiting.refresh_from_db()
    assert waiting.state == "asked"
    assert {r.standing for r in waiting.reviews.all()} == {"voided"}
    packages.record(waiting)
    assert waiting.lock_before == adopted.digest_in_force()
    packages.approve(waiting, "ada")
    packages.approve(waiting, "grace")
    packages.built(waiting)
    assert locks.current().version_of("tiny") == "1.0"
    assert locks.current().version_of("other") == "2.0"


def test_a_lock_that_moves_under_a_build_is_not_taken(packages: Any, refused: Any) -> None:
    packages.index.add("other", "2.0", {"other/__init__.py": "A = 1\n"})
    first, second = packages.approved(), packages.approved("other==2.0", modules="other")
    packages.built(first)
    second.refresh_from_db()
    DependencyRequest.objects.filter(pk=second.pk).update(state="building")
    with refused("stale"):
        builds.adopt(
            request_id=second.pk, built=builds.Built(image_id="i", image_name="n", sbom="")
        )
    DependencyRequest.objects.filter(pk=second.pk).update(state="approved")
    assert LockVersion.objects.count() == 2


def test_rolling_back_and_forward(packages: Any, world: Any, refused: Any) -> None:
    request = packages.approved()
    packages.built(request)
    seed = locks.seed().digest
    with refused("not_entitled"):
        builds.roll_back(generation=1, person=world["eve"], reason="why not")
    with refused("wrong_state"):
        builds.roll_back(generation=2, person=world["ada"], reason="why not")
    builds.roll_back(generation=1, person=world["ada"], reason="it is slow")
    work.settle()
    request.refresh_from_db()
    assert (request.state, locks.current().digest) == ("revoked", seed)
    builds.roll_back(generation=2, person=world["linus"], reason="it was not that")
    work.settle()
    request.refresh_from_db()
    assert (request.state, locks.current().digest) == ("adopted", request.lock_after)
    assert adopted.newest().generation == 4  # type: ignore[union-attr]


def test_a_lock_that_live_code_needs_stays(packages: Any, world: Any, refused: Any) -> None:
    packages.built(packages.approved())
    lock, seed = locks.current(), locks.seed()
    files = world.files("needy")
    path = "mechanisms/needy.py"
    files[path] = files[path].replace("\nSTEP", "\nimport tiny\n\nSTEP = tiny.LIMIT\nSTEP", 1)
    done = world.repository.commit_draft(
        proposal_id=999,
        base=world.repository.head(),
        files={k: v.encode() for k, v in files.items()},
        name="needy",
    )
    row = world.target.activations.get(state="live")
    type(row).objects.filter(pk=row.pk).update(commit=done.commit, mechanism_path=path)
    try:
        assert any("imports tiny" in words for words in builds.needing(lock, seed))
        with refused("in_use"):
            builds.roll_back(generation=1, person=world["ada"], reason="not needed")
    finally:
        type(row).objects.filter(pk=row.pk).update(
            commit=row.commit, mechanism_path=row.mechanism_path
        )


def test_a_lock_that_nobody_adopted_is_refused(packages: Any, site: Path) -> None:
    extra = locks.Pin(name="evil", version="1.0", hashes=("ab" * 32,))
    locks.keep(locks.seed().extended([extra], {}))
    with pytest.raises(InfrastructureError, match="nobody adopted"):
        adopted.require()
    assert work.settle() == 0, "there is nothing to put in its place"
    locks.forget()
    packages.built(packages.approved())
    locks.keep(locks.seed().extended([extra], {}))
    with pytest.raises(InfrastructureError, match="not lock 2"):
        adopted.require()
    assert work.settle() == 1
    adopted.require()
    (site / "image/lock.json").write_bytes(b"{")
    assert work.settle() == 1
    adopted.require()
    told = packages.world.entries("lock.settled")
    assert told[-1]["data"]["found"] == "unreadable"


def test_what_was_screened_with_other_packages_is_stale(
    packages: Any, world: Any, refused: Any
) -> None:
    proposal = world.passed()
    world.approve(proposal, "ada")
    packages.built(packages.approved())
    with refused("stale"):
        world.approve(proposal, "grace")
    from proposals import sweeps

    sweeps.rescreen_stale()
    proposal.refresh_from_db()
    assert proposal.state == "submitted"
    assert "other packages" in proposal.state_reason
    assert {r.standing for r in proposal.reviews.all()} == {"voided"}
    versions = {"python": "3.11", "lock": adopted.digest_in_force()}
    world.screen(proposal, image_id="sha256:" + "7c" * 32, versions=versions)
    world.approve(proposal, "grace")


def test_a_dead_worker_s_build_is_given_up_and_built_again(
    packages: Any, world: Any, refused: Any
) -> None:
    request = packages.approved()
    assert builds.begin(request.pk) is not None
    assert builds.begin(request.pk) is None, "two workers, one build"
    long_ago = timezone.now() - 2 * builds.SILENT
    DependencyRequest.objects.filter(pk=request.pk).update(claimed_at=long_ago)
    work.refresh()
    request.refresh_from_db()
    assert (request.state, request.code) == ("build_failed", "silent")
    assert locks.site() is None
    with refused("not_entitled"):
        builds.again(request_id=request.pk, person=world["eve"], reason="again")
    builds.again(request_id=request.pk, person=world["linus"], reason="the worker is back")
    packages.built(request)
    assert request.state == "adopted"
