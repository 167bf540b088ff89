"""Any order of verbs by anybody: the invariants hold, and the audit log tells it truly.

A state machine of hypothesis over the real verbs, real git and the real log. Verbs that may not
be are denied; whatever happens, the rules below hold after each step.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from audit import keys
from django.conf import settings as live_settings
from django.db import transaction
from django.test import override_settings
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from proposals import autonomy, lifecycle, sweeps
from proposals.acts import Denied
from proposals.models import Activation, Proposal, Review
from proposals.states import State
from runs.models import Target

from sandbox.report import Outcome

NAMES = st.sampled_from(["ada", "grace", "rosa", "mary", "linus", "katherine", "eve"])
WHICH = st.integers(min_value=0, max_value=5)
OUTCOMES = st.sampled_from([Outcome.PASSED] * 4 + [Outcome.FAILED, Outcome.COULD_NOT_LOOK])


class Governed(RuleBasedStateMachine):
    """One target, some proposals, seven people, one runner."""

    make_world: Any = None

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="machine-"))
        self.overridden = override_settings(
            KEYS=self.folder / "keys", MECHANISMS_REPOSITORY=self.folder / "m.git"
        )
        self.overridden.enable()
        keys.ensure_keys()
        self.atomic = transaction.atomic()
        self.atomic._from_testcase = True  # type: ignore[attr-defined] # durable verbs nest in it
        self.atomic.__enter__()
        self.made = 0
        self.world = type(self).make_world()

    def teardown(self) -> None:
        if not hasattr(self, "atomic"):
            return
        try:
            problems = self.world.verify() if hasattr(self, "world") else ["no world"]
        finally:
            transaction.set_rollback(True)
            self.atomic.__exit__(None, None, None)
            self.overridden.disable()
            shutil.rmtree(self.folder, ignore_errors=True)
        assert problems == []

    def pick(self, which: int) -> Proposal | None:
        found = list(Proposal.objects.order_by("-pk"))
        return found[which % len(found)] if found else None

    def attempt(self, verb: Any) -> None:
        try:
            verb()
        except Denied:
            return

    # --- verbs ---

    @rule(low=st.booleans())
    def submit(self, low: bool) -> None:
        self.made += 1
        name = f"m{self.made}"
        files = self.world.tabu(name, tenure=10 + self.made) if low else self.world.files(name)
        self.attempt(lambda: self.world.submit(name, files=files))

    @rule(which=WHICH, outcome=OUTCOMES)
    def screen(self, which: int, outcome: Outcome) -> None:
        proposal = self.pick(which)
        if proposal and proposal.screenings.filter(phase="queued").exists():
            self.world.screen(proposal, outcome=outcome)

    @rule(which=WHICH, name=NAMES)
    def approve(self, which: int, name: str) -> None:
        if proposal := self.pick(which):
            self.attempt(lambda: self.world.approve(proposal, name))

    @rule(which=WHICH)
    def both_approve(self, which: int) -> None:
        for name in ("ada", "grace"):
            self.approve(which, name)

    @rule(which=WHICH, name=NAMES)
    def reject(self, which: int, name: str) -> None:
        if proposal := self.pick(which):
            person = self.world[name]
            self.attempt(
                lambda: lifecycle.reject(proposal_id=proposal.pk, person=person, reason="no")
            )

    @rule(which=WHICH, name=NAMES)
    def withdraw(self, which: int, name: str) -> None:
        if proposal := self.pick(which):
            person = self.world[name]
            self.attempt(
                lambda: lifecycle.withdraw(proposal_id=proposal.pk, person=person, reason="mine")
            )

    @rule(which=WHICH)
    def activate(self, which: int) -> None:
        if proposal := self.pick(which):
            self.attempt(lambda: lifecycle.activate(proposal_id=proposal.pk))

    @rule(right=st.sampled_from([True, True, True, False]))
    def attest(self, right: bool) -> None:
        self.attempt(lambda: self.world.attest(digest="" if right else "ee" * 32))

    @precondition(lambda self: self.world.desired.live_version)
    @rule()
    def refuse_load(self) -> None:
        target = self.world.desired
        lifecycle.refuse_load(
            runner=self.world.runner,
            version=target.desired_version,
            digest_running=target.live_digest,
            reason="it raised",
        )

    @rule(which=WHICH, name=NAMES)
    def roll_back(self, which: int, name: str) -> None:
        known = list(Activation.objects.order_by("-pk"))
        self.attempt(lambda: self.world.roll_back(known[which % len(known)], by=name))

    @rule(name=NAMES)
    def stop_and_release(self, name: str) -> None:
        self.attempt(
            lambda: lifecycle.stop(
                person=self.world[name], reason="smoke", target_id=self.world.target.pk
            )
        )
        for stop in self.world.target.stop_set.filter(released_at__isnull=True):
            for person in ("ada", "grace"):
                lifecycle.release_stop(stop_id=stop.pk, person=self.world[person], reason="ok")

    @rule(
        mode=st.sampled_from(["manual", "shadow", "guarded"]), by=st.sampled_from(["linus", "mary"])
    )
    def load_policy(self, mode: str, by: str) -> None:
        self.world.load_policy(by=by, mode=mode)

    @rule()
    def sweep(self) -> None:
        sweeps.activate_approved()
        autonomy.consider_all()
        sweeps.rescreen_stale()

    # --- what holds whatever happened ---

    @invariant()
    def one_live_and_as_attested(self) -> None:
        live = Activation.objects.filter(state="live")
        assert live.count() <= 1
        assert all(a.digest_attested == a.digest for a in live)
        assert Proposal.objects.filter(state=State.LIVE).count() <= 1
        assert Activation.objects.filter(state="activating").count() <= 1

    @invariant()
    def versions_count_up_by_one(self) -> None:
        versions = list(Activation.objects.order_by("pk").values_list("version", flat=True))
        assert versions == list(range(1, len(versions) + 1))
        if versions:
            target = Target.objects.get()
            newest = Activation.objects.get(version=versions[-1])
            assert (target.desired_version, target.desired_digest) == (
                newest.version,
                newest.digest,
            )

    @invariant()
    def whatever_was_activated_was_approved(self) -> None:
        for activation in Activation.objects.filter(kind="approval"):
            used = Review.objects.filter(consumed_by=activation)
            people = {r.reviewer.username for r in used if r.reviewer}
            assert people <= {"ada", "grace", "rosa", "mary"}
            risky = not activation.proposal.recognised  # type: ignore[union-attr]
            assert len(people) >= (2 if risky else 1)
        for activation in Activation.objects.filter(kind="policy"):
            assert activation.proposal.recognised  # type: ignore[union-attr]

    @invariant()
    def nothing_is_approved_without_a_pass(self) -> None:
        for proposal in Proposal.objects.filter(state__in=[State.PASSED, State.APPROVED]):
            screening = lifecycle.screening_of(proposal)
            assert screening is not None
            assert screening.outcome == "passed"

    @invariant()
    def main_holds_the_seed_and_what_was_activated(self) -> None:
        if not hasattr(self, "world"):
            return
        names = set(self.world.repository.library(self.world.repository.head()))
        merged = Activation.objects.filter(kind__in=["approval", "policy"])
        seed = set(self.world.repository.library(self.world.repository.first()))
        assert "tabu" in seed
        assert names == seed | set(merged.values_list("mechanism", flat=True))


@pytest.mark.django_db
def test_any_order_of_verbs(make_world: Any) -> None:
    assert live_settings.MECHANISMS_SEED.is_dir()
    Governed.make_world = staticmethod(make_world)
    run_state_machine_as_test(
        Governed,
        settings=settings(
            max_examples=int(os.environ.get("ESCAPEMENT_MACHINE_EXAMPLES", "6")),
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
