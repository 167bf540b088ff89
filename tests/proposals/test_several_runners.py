"""Several runners on one target: two real processes follow the same desired version, and what one
of them refuses no other keeps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from audit.actors import SYSTEM
from django.utils import timezone
from proposals import canary, lifecycle, standing
from proposals.models import Activation
from proposals.standing import Place
from runs import tokens
from runs.models import Runner

from runner.protocol import Observed
from sandbox.report import digest_of
from scripts.chaos_loop_crew import Crew, rows

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("gpu-2", "gpu-3")
PATIENCE_SECONDS = 120.0


def told(name: str, state: str, version: int, digest: str = "", why: str = "") -> None:
    runner = Runner.objects.get(name=name)
    seen = Observed.model_validate(
        {"version": version, "state": state, "digest": digest, "mechanism": "m", "reason": why}
    )
    lifecycle.observe(runner=runner, observed=seen)


def join(world: Any, *names: str) -> dict[str, str]:
    """More runners on the world's target; their tokens."""
    found = {}
    for name in names:
        _, found[name] = tokens.register(
            name=name, target=world.target, operator=world["linus"], actor=SYSTEM
        )
    return found


def places(world: Any) -> dict[str, Place]:
    target = world.desired
    return {r.name: standing.place_of(r, target) for r in target.runners.all()}


# --- what one says and another does not ---


@pytest.fixture
def lately(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody falls silent because the test takes long."""
    monkeypatch.setattr(standing, "STALE_SECONDS", 3600)


@pytest.mark.usefixtures("lately")
def test_live_with_the_first_and_shown_until_all_follow(world: Any) -> None:
    join(world, *NAMES)
    null = world.desired.desired_digest
    for name in NAMES:
        told(name, "live", 1, null)
    proposal = world.approved()
    lifecycle.activate(proposal_id=proposal.pk)
    told("gpu-2", "live", 2, proposal.digest)
    proposal.refresh_from_db()
    assert proposal.state == "live"
    assert places(world) == {
        "gpu-1": Place.NEVER_SEEN,
        "gpu-2": Place.RUNS_IT,
        "gpu-3": Place.BEHIND,
    }
    rows = standing.runner_rows(world.desired)
    assert standing.convergence(world.desired, rows) == "1 of 2 working runners run version 2"
    assert standing.alarms(world.desired, rows, None) == []
    target = world.desired
    target.desired_since = timezone.now() - timedelta(seconds=standing.BEHIND_SECONDS + 1)
    (alarm,) = standing.alarms(target, rows, None)
    assert alarm.title == "gpu-3 is behind"
    told("gpu-3", "live", 2, proposal.digest)
    assert places(world)["gpu-3"] is Place.RUNS_IT
    assert Activation.objects.get(version=2).attested_by == "gpu-2"


@pytest.mark.parametrize("order", [("live", "refused"), ("refused", "live")])
def test_what_one_refuses_no_other_keeps(world: Any, order: tuple[str, str]) -> None:
    join(world, *NAMES)
    null = world.desired.desired_digest
    proposal = world.approved()
    lifecycle.activate(proposal_id=proposal.pk)
    for name, state in zip(NAMES, order, strict=True):
        digest = proposal.digest if state == "live" else null
        told(name, state, 2, digest, "" if state == "live" else "it does not load here")
    canary.judge_canaries()
    assert world.desired.desired_version == 3
    assert world.desired.desired_digest == null  # whoever was first
    proposal.refresh_from_db()
    assert proposal.state == ("rolled_back" if order[0] == "live" else "refused")
    assert "it does not load here" in proposal.state_reason


@pytest.mark.usefixtures("lately")
def test_a_silent_runner_holds_nobody_up(world: Any) -> None:
    join(world, *NAMES)
    for name in NAMES:
        told(name, "live", 1, world.desired.desired_digest)
    Runner.objects.filter(name="gpu-3").update(seen_at=timezone.now() - timedelta(hours=2))
    proposal = world.approved()
    lifecycle.activate(proposal_id=proposal.pk)
    told("gpu-2", "live", 2, proposal.digest)
    proposal.refresh_from_db()
    assert proposal.state == "live"
    assert places(world)["gpu-3"] is Place.SILENT
    rows = standing.runner_rows(world.desired)
    assert standing.convergence(world.desired, rows) == "1 of 1 working runners run version 2"


# --- two processes, a real server ---

# Acts of people and of the platform's worker, in the installation's own database.
ACTS = """
import json
from audit.actors import SYSTEM
from proposals import branches, lifecycle
from proposals.activations import request
from proposals.acts import act, locked_target
from proposals.models import Activation
from runs.models import Target
from sandbox.report import digest_of

def want(name):
    repository = branches.living()
    commit = repository.head()
    operator = repository.library(commit)[name]
    target = Target.objects.get(name="lab")
    with act(actor=SYSTEM, tried="seed", subject="target:lab", target="lab") as ledger:
        request(ledger, target=locked_target(target.pk), kind=Activation.Kind.SEED,
                mechanism=name, path=operator.path, commit=commit,
                digest=digest_of(operator.source), actor=SYSTEM, reason="test")

def roll_back(version):
    target = Target.objects.get(name="lab")
    earlier = target.activations.get(version=version)
    lifecycle.roll_back(target_id=target.pk, activation_id=earlier.pk, actor=SYSTEM, reason="test")
"""
OBSERVED = (
    "SELECT observed_version, observed_mechanism, observed_digest, observed_state FROM runs_runner "
    "ORDER BY name"
)
TRIALS = (
    "SELECT u.name, t.version, t.mechanism, t.digest FROM runs_trial t "
    "JOIN runs_run r ON r.id = t.run_id JOIN runs_runner u ON u.id = r.runner_id WHERE t.number > 0"
)


class Two:
    """An installation with a web server and two runner processes on one target."""

    def __init__(self, folder: Path) -> None:
        self.crews = [Crew(folder=folder, trials=9999, parallel=1, name=n) for n in NAMES]
        self.crews[1].port = self.crews[0].port
        self.database = folder / "var" / "db.sqlite3"

    def start(self) -> None:
        first, second = self.crews
        first.set_up()
        second.register()
        first.serve()
        for crew in self.crews:
            crew.start("runner")

    def alive(self) -> bool:
        return all(p.poll() is None for c in self.crews for p in c.processes.values())

    def act(self, what: str) -> None:
        self.crews[0].manage("shell", "-c", f"{ACTS}\n{what}")

    def both_run(self, version: int, mechanism: str) -> Callable[[], bool]:
        def they_do() -> bool:
            seen = rows(self.database, OBSERVED)
            return [(r[0], r[1], r[3]) for r in seen] == [(version, mechanism, "live")] * 2

        return they_do

    def both_tried(self, version: int) -> Callable[[], bool]:
        return lambda: len({r[0] for r in rows(self.database, TRIALS) if r[1] == version}) == 2

    def stop(self) -> None:
        for crew in self.crews[::-1]:
            crew.stop()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    made = Two(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def until(what: Callable[[], bool], alive: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert alive(), "a process ended"
        assert time.monotonic() < deadline, "they do not follow"
        time.sleep(0.1)


@pytest.mark.engine
@pytest.mark.slow
def test_two_runners_follow_one_target_and_a_rollback_reaches_both(two: Two) -> None:
    for version, act, mechanism in (
        (1, "", "null"),
        (2, "want('tabu')", "tabu"),
        (3, "roll_back(1)", "null"),
    ):
        if act:
            two.act(act)
        until(two.both_run(version, mechanism), two.alive)
        until(two.both_tried(version), two.alive)
    library = ROOT / "mechanisms_repo" / "mechanisms"
    digests = {n: digest_of((library / f"{n}.py").read_bytes()) for n in ("null", "tabu")}
    expected = {1: "null", 2: "tabu", 3: "null"}
    for _, version, mechanism, digest in rows(two.database, TRIALS):
        assert (mechanism, digest) == (expected[version], digests[mechanism])
    live = "SELECT state, attested_by FROM proposals_activation WHERE version = 3"
    ((state, attested_by),) = rows(two.database, live)
    assert (state, attested_by in NAMES) == ("live", True)
