"""An auditor sees from the log alone that a package came in by the rules, or did not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from audit.models import Entry
from audit.verifier import Rules
from dependencies import builds, work
from dependencies.evidence import DependencyEvidence
from dependencies.models import DependencyRequest

from sandbox.report import digest_of

pytestmark = pytest.mark.django_db
Body = dict[str, Any]


@pytest.fixture
def story(packages: Any) -> list[Body]:
    """Asked, approved by two, adopted, rolled back: the entries as they were written."""
    request = packages.approved()
    packages.built(request)
    builds.roll_back(generation=1, person=packages.world["ada"], reason="slow")
    work.settle()
    return [json.loads(row.body) for row in Entry.objects.order_by("seq")]


def problems(bodies: list[Body]) -> str:
    rules = Rules()
    for body in bodies:
        rules.read(body)
    return "\n".join(p.message for p in rules.problems)


def told(bodies: list[Body], verb: str, which: int = 0) -> Body:
    return [b for b in bodies if b["verb"] == verb][which]


def by_the_requester(bodies: list[Body]) -> None:
    asked = told(bodies, "dependency.asked")["data"]["requester"]
    told(bodies, "dependency.approved")["actor"]["id"] = asked["id"]


def by_the_platform(bodies: list[Body]) -> None:
    told(bodies, "dependency.approved")["actor"]["kind"] = "system"


def of_another_record(bodies: list[Body]) -> None:
    told(bodies, "dependency.approved")["data"]["binding"]["record_digest"] = "0" * 64


def with_one_approval(bodies: list[Body]) -> None:
    adopted = told(bodies, "dependency.adopted")["data"]
    gone = adopted["approvals"].pop()
    adopted["moves"] = [m for m in adopted["moves"] if not m["of"].endswith(f"review:{gone}")]


def twice_the_same_person(bodies: list[Body]) -> None:
    one, two = (told(bodies, "dependency.approved", n) for n in (0, 1))
    two["actor"] = dict(one["actor"])


def another_lock(bodies: list[Body]) -> None:
    told(bodies, "dependency.adopted")["data"]["lock"] = "0" * 64


def an_expired_approval(bodies: list[Body]) -> None:
    told(bodies, "dependency.approved")["data"]["expires_at"] = "2020-01-01T00:00:00.000000Z"


def a_skipped_generation(bodies: list[Body]) -> None:
    told(bodies, "dependency.adopted")["data"]["generation"] = 9


def a_lock_that_never_was(bodies: list[Body]) -> None:
    told(bodies, "lock.rolled_back")["data"]["lock"] = "0" * 64


def rolled_back_by_a_token(bodies: list[Body]) -> None:
    told(bodies, "lock.rolled_back")["actor"]["kind"] = "runner"


def adopted_without_a_build(bodies: list[Body]) -> None:
    bodies.remove(told(bodies, "dependency.building"))


def test_the_story_holds_and_is_in_the_bundle(story: list[Body]) -> None:
    assert problems(story) == ""
    files = dict(DependencyEvidence().files("default"))
    for n, verb in ((1, "lock.seeded"), (2, "dependency.adopted"), (3, "lock.rolled_back")):
        told_digest = told(story, verb)["data"]["lock"]
        assert digest_of(files[f"packages/locks/{n}/lock.json"]) == told_digest
    pk = DependencyRequest.objects.get().pk
    assert {f"packages/{pk}/record.json", "packages/locks/2/lock.json"} <= set(files)
    decisions = json.loads(files[f"packages/{pk}/decision.json"])
    assert [d["by"] for d in decisions] == ["ada", "grace"]
    said = dict(DependencyEvidence().exceptions("default"))
    assert f"dependency:{pk}" in said
    assert "lock:3" in said


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (by_the_requester, "a package of their own"),
        (by_the_platform, "is no person"),
        (of_another_record, "another record_digest"),
        (with_one_approval, "1 people approved, 2 were needed"),
        (twice_the_same_person, "1 people approved, 2 were needed"),
        (another_lock, "the lock is not the approved one"),
        (an_expired_approval, "does not stand any more"),
        (a_skipped_generation, "lock 9 does not follow"),
        (a_lock_that_never_was, "that lock never was"),
        (rolled_back_by_a_token, "only a person rolls a lock back"),
        (adopted_without_a_build, "the log left it"),
    ],
)
def test_what_was_not_allowed_is_seen(
    story: list[Body], tamper: Callable[[list[Body]], None], words: str
) -> None:
    bodies = copy.deepcopy(story)
    tamper(bodies)
    assert words in problems(bodies)
