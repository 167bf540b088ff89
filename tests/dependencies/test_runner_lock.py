"""The runner's end: a mechanism runs only in an image of a lock that it may run with."""

from __future__ import annotations

from typing import Any

import pytest
from audit import keys
from dependencies import adopted

from runner.control.hotload import Loader, LoadRefused, require_lock
from runner.protocol import Desired, signing_bytes
from sandbox import lock as locks
from sandbox.mechanism import Knob, Space, Trial, View

pytestmark = pytest.mark.django_db


def view() -> View:
    trial = Trial(number=0, config={"A": 1.0}, changes={}, metric=1.0, status="kept")
    space = Space(knobs={"A": Knob(kind="float", default=0.5, low=0.0, high=1.0)})
    return View(trace=(trial,), best=trial, space=space)


def desired_of(world: Any) -> Desired:
    answer = world.door().get("/api/v1/runner/desired", headers={"host": "localhost"})
    assert answer.status_code == 200, answer.content
    return Desired.model_validate_json(answer.content)


def test_the_desired_state_names_the_locks_under_its_signature(packages: Any) -> None:
    world = packages.world
    desired = desired_of(world)
    assert desired.locks == [locks.seed().digest]
    require_lock(desired)
    packages.built(packages.approved())
    after = desired_of(world)
    assert after.locks == [adopted.digest_in_force()]
    require_lock(after)
    signed = signing_bytes(
        target=after.target, version=after.version, commit=after.commit, digest=after.digest
    )
    assert signed != signing_bytes(
        target=after.target,
        version=after.version,
        commit=after.commit,
        digest=after.digest,
        locks=after.locks,
    )


def test_a_runner_without_that_image_refuses_and_says_what_to_do(packages: Any) -> None:
    world = packages.world
    packages.built(packages.approved())
    desired = desired_of(world)
    locks.forget()  # another machine, which never heard of it
    asked: list[str] = []

    def backend() -> Any:
        asked.append("started")
        raise AssertionError("nothing may be started")

    loader = Loader(backend, public_key=keys.public_key_hex(), target="demo")
    with pytest.raises(LoadRefused, match=r"image --lock lock\.json"):
        loader.load(desired, view(), last_version=0, last_digest="", state=None, seed=1)
    assert not asked
    forged = desired.model_copy(update={"locks": [locks.current().digest]})
    with pytest.raises(LoadRefused, match="wrong signature"):
        loader.load(forged, view(), last_version=0, last_digest="", state=None, seed=1)


def test_what_was_screened_before_an_adoption_may_run_with_either_lock(packages: Any) -> None:
    from proposals.facts import locks_for

    world = packages.world
    proposal = world.submit()
    world.screen(proposal, versions={"python": "3.11", "lock": locks.seed().digest})
    packages_lock = packages.approved()
    world.approve(proposal, "ada")
    world.approve(proposal, "grace")
    from proposals import lifecycle

    lifecycle.activate(proposal_id=proposal.pk)
    world.attest()
    packages.built(packages_lock)
    activation = proposal.activations.get()
    assert locks_for(activation) == sorted([locks.seed().digest, adopted.digest_in_force()])
