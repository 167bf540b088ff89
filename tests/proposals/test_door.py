"""The runner's door over HTTP: what is refused, with its code, its entry, and nothing made."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from typing import Any

import pytest
from audit import checkpoints, keys
from audit.actors import SYSTEM
from audit.models import Entry
from django.core.cache import cache
from django.db import transaction
from django.test import Client
from django.utils import timezone
from proposals import lifecycle
from proposals.models import Proposal, Screening, Stop
from runs import api, tokens
from runs.api import REFUSALS_A_MINUTE

from runner.protocol import MAX_BODY_BYTES, Desired, signing_bytes
from sandbox.report import digest_of


def post(client: Client, path: str, body: Any) -> Any:
    data = body if isinstance(body, (str, bytes)) else json.dumps(body)
    return client.post(f"/api/v1/{path}", data=data, content_type="application/json")


def draft(world: Any, files: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    made = world.submission(files or world.files("gentle")).model_dump(mode="json")
    return {**made, **more}


def nothing_made(world: Any) -> bool:
    no_rows = not Proposal.objects.exists() and not Screening.objects.exists()
    return no_rows and world.repository.branch(1) is None


TWO = "\n\nclass Other(Mechanism):\n    pass\n"
BASE = "mechanisms/gentle.py"
TEST = "tests/test_gentle.py"


def changed(world: Any, change: dict[str, Any], drop: str = "") -> dict[str, str]:
    files = world.files("gentle")
    files.update({k: v(files.get(k, "")) if callable(v) else v for k, v in change.items()})
    files.pop(drop, None)
    return files


@pytest.mark.parametrize(
    ("code", "status", "change", "drop"),
    [
        ("too_large", 413, {BASE: lambda s: s + "#" * 70_000}, ""),
        ("syntax_error", 422, {BASE: "def ("}, ""),
        ("two_mechanisms", 422, {BASE: lambda s: s + TWO}, ""),
        ("path_not_allowed", 422, {"mechanisms/../evil.py": "x = 1\n"}, TEST),
        ("path_not_allowed", 422, {"/etc/passwd": "x = 1\n"}, TEST),
        ("path_not_allowed", 422, {"platform/policy.yaml": "x = 1\n"}, TEST),
        ("too_many_files", 422, {"mechanisms/more.py": "x = 1\n"}, ""),
        ("no_test", 422, {}, TEST),
        ("no_mechanism", 422, {BASE: "x = 1\n"}, ""),
        ("not_text", 422, {BASE: lambda s: s + "# \ud800"}, ""),
        ("empty", 422, {BASE: ""}, ""),
        ("deeply_nested", 422, {BASE: lambda s: s + "x = " + "(" * 20_000 + ")" * 20_000}, ""),
        ("not_utf8", 422, {BASE: lambda s: "# coding: rot13\n" + s}, ""),
        ("syntax_error", 422, {BASE: lambda s: s + "x = '\x00'\n"}, ""),
        ("syntax_error", 422, {TEST: "def test_it(:\n"}, ""),
        ("path_not_allowed", 422, {"mechanisms/a.py\x00": "x = 1\n"}, TEST),
        ("no_mechanism", 422, {BASE: "class Mechanism: pass\nclass A(Mechanism): pass\n"}, ""),
    ],
)
def test_a_bad_draft_is_refused_at_the_door(
    world: Any, code: str, status: int, change: dict[str, Any], drop: str
) -> None:
    answer = post(world.door(), "runner/proposals", draft(world, changed(world, change, drop)))
    assert (answer.status_code, answer.json()["error"]) == (status, code), answer.content
    (entry,) = world.entries("proposal.refused_at_door")
    assert entry["data"]["code"] == code
    assert entry["actor"]["kind"] == "runner"
    assert nothing_made(world)


@pytest.mark.parametrize(
    ("code", "status", "more"),
    [
        ("stale_base", 409, {"base_commit": "0" * 40}),
        ("stale_base", 409, {"base_digest": "0" * 64}),
        ("unknown_run", 422, {"run_id": str(uuid.uuid4())}),
        ("invalid", 422, {"run_id": "x"}),
        ("invalid", 422, {"draft_id": "-" * 36}),
        ("invalid", 422, {"surprise": 1}),
        ("invalid", 422, {"base_commit": "--upload-pack=x"}),
        ("invalid", 422, {"title": "x" * 300}),
    ],
)
def test_a_draft_about_something_else_is_refused(
    world: Any, code: str, status: int, more: dict[str, Any]
) -> None:
    answer = post(world.door(), "runner/proposals", draft(world, **more))
    assert (answer.status_code, answer.json()["error"]) == (status, code), answer.content
    assert world.entries("proposal.refused_at_door")[-1]["data"]["code"] == code
    assert nothing_made(world)


def test_a_name_that_exists_is_refused(world: Any) -> None:
    door = world.door()
    existing = {
        path.replace("gentle", "tabu"): text.replace("gentle", "tabu")
        for path, text in world.files("gentle").items()
    }
    assert post(door, "runner/proposals", draft(world, existing)).json()["error"] == "name_exists"
    assert post(door, "runner/proposals", draft(world)).status_code == 200
    again = post(door, "runner/proposals", draft(world))
    assert (again.status_code, again.json()["error"]) == (409, "name_exists")


def test_the_same_draft_twice_is_one_proposal_and_another_one_a_conflict(world: Any) -> None:
    door, body = world.door(), draft(world)
    first = post(door, "runner/proposals", body).json()
    assert post(door, "runner/proposals", body).json() == first
    assert Proposal.objects.count() == Screening.objects.count() == 1
    other = post(door, "runner/proposals", {**body, "title": "Another"})
    assert (other.status_code, other.json()["error"]) == (409, "conflict")
    files = {**body["files"], BASE: body["files"][BASE] + "# more\n"}
    assert post(door, "runner/proposals", {**body, "files": files}).status_code == 409
    state = door.get(f"/api/v1/runner/proposals/{body['draft_id']}").json()
    assert (state["proposal"], state["state"]) == (first["proposal"], "submitted")
    assert door.get(f"/api/v1/runner/proposals/{uuid.uuid4()}").status_code == 404


def test_an_author_may_not_flood_the_reviewers(world: Any) -> None:
    for i in range(5):
        world.submit(f"gentle_{i}")
    answer = post(world.door(), "runner/proposals", draft(world))
    assert (answer.status_code, answer.json()["error"]) == (429, "too_many_open")


@pytest.mark.parametrize(
    "body",
    ["{", "[]", '{"draft_id": NaN}', "[" * 100_000, b"\xff\xfe", '{"draft_id": {"a": 1}}'],
)
def test_what_is_no_draft_is_refused_and_recorded(world: Any, body: Any) -> None:
    answer = post(world.door(), "runner/proposals", body)
    assert answer.status_code == 422, answer.content
    assert world.entries("proposal.refused_at_door")
    assert nothing_made(world)


@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, 5 * MAX_BODY_BYTES])
def test_a_body_over_the_limit_is_not_read(world: Any, size: int) -> None:
    answer = post(world.door(), "runner/proposals", b" " * size)
    assert (answer.status_code, answer.json()["error"]) == (413, "too_large")
    assert world.entries("proposal.refused_at_door")[-1]["data"]["code"] == "too_large"


# --- tokens ----------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["approve", "reject", "withdraw", "rescreen", "activate"])
def test_the_authors_token_decides_nothing(world: Any, verb: str) -> None:
    proposal = world.passed()
    answer = post(world.door(), f"proposals/{proposal.pk}/{verb}", {"reason": "mine"})
    assert (answer.status_code, answer.json()["error"]) == (403, "not_a_person")
    proposal.refresh_from_db()
    assert proposal.state == "passed"
    last = json.loads(Entry.objects.latest("seq").body)
    assert (last["actor"]["kind"], last["data"]["tried"]) == ("runner", verb)
    assert last["data"]["code"] == "not_a_person"


def test_bad_tokens_are_refused_and_recorded_a_few_times_a_minute(world: Any) -> None:
    cache.clear()
    for headers in (
        {},
        {"authorization": "Basic eDp5"},
        {"authorization": "Bearer " + "x" * 5000},
        {"authorization": f"Bearer esc_{'a' * 43}"},
    ):
        answer = Client(headers=headers).get("/api/v1/runner/desired")
        assert (answer.status_code, answer.json()["error"]) == (401, "bad_token")
    assert len(world.entries("runner.auth_failed")) == 4
    for _ in range(20):
        Client().get("/api/v1/runner/desired")
    assert len(world.entries("runner.auth_failed")) == 5


def test_an_expired_a_revoked_and_an_orphaned_token_are_refused(world: Any) -> None:
    cache.clear()
    door, runner = world.door(), world.runner
    assert door.get("/api/v1/runner/desired").status_code == 200
    world["linus"].is_active = False
    world["linus"].save()
    assert door.get("/api/v1/runner/desired").status_code == 401
    world["linus"].is_active = True
    world["linus"].save()
    runner.token_expires_at = timezone.now() - timedelta(seconds=1)
    runner.save()
    assert "expired" in door.get("/api/v1/runner/desired").json()["message"]
    runner.token_expires_at = timezone.now() + timedelta(days=1)
    runner.save()
    tokens.revoke(runner=runner, actor=lifecycle.actor_of(world["linus"]), reason="lost")
    assert "revoked" in door.get("/api/v1/runner/desired").json()["message"]
    assert world.token not in json.dumps(world.entries("runner.auth_failed"))


def test_the_token_is_kept_as_a_digest_alone(world: Any) -> None:
    world.runner.refresh_from_db()
    assert world.runner.token_digest == tokens.digest_of_token(world.token)
    assert world.token not in str(vars(world.runner))


# --- desired and observed --------------------------------------------------------------------


def test_the_desired_state_is_signed_and_holds_the_exact_source(world: Any) -> None:
    proposal = world.approved()
    lifecycle.activate(proposal_id=proposal.pk)
    answer = world.door().get("/api/v1/runner/desired")
    desired = Desired.model_validate_json(answer.content)
    assert digest_of(desired.source.encode()) == desired.digest == proposal.digest
    signs = {"target": "demo", "version": 2, "commit": desired.commit, "digest": desired.digest}
    assert keys.verify(signing_bytes(**signs, locks=desired.locks), desired.signature)
    assert not keys.verify(signing_bytes(**signs), desired.signature)  # the image's lock as well
    assert desired.base_commit == world.repository.head() == proposal.commit
    assert {"null", "tabu", "gentle"} <= {entry.name for entry in desired.library}
    assert not desired.stopped
    lifecycle.stop(person=world["ada"], reason="smoke", target_id=world.target.pk)
    stopped = world.door().get("/api/v1/runner/desired").json()
    assert (stopped["stopped"], stopped["stop_reason"]) == (True, "smoke")


def test_the_desired_state_is_sent_whole_only_where_it_changed(world: Any) -> None:
    def ask(tag: str) -> Any:
        headers = {"If-None-Match": tag}
        return world.door().get("/api/v1/runner/desired", headers=headers)

    first = ask("")
    tag = first["ETag"]
    assert (ask(tag).status_code, ask(tag).content) == (304, b"")
    for other in ('"other"', tag + "x", "*", "x" * 5000):
        assert (ask(other).status_code, ask(other).content) == (200, first.content)
    lifecycle.stop(person=world["ada"], reason="smoke", target_id=world.target.pk)
    stopped = ask(tag)
    assert stopped.status_code == 200
    assert stopped.json()["stopped"]
    assert ask(stopped["ETag"]).status_code == 304


def test_a_runner_attests_over_http(world: Any) -> None:
    proposal = world.approved()
    lifecycle.activate(proposal_id=proposal.pk)
    body = {"version": 2, "state": "live", "digest": "cd" * 32, "activity": "nul \u0000 here"}
    wrong = post(world.door(), "runner/observed", body)
    assert (wrong.status_code, wrong.json()["error"]) == (409, "wrong_digest")
    proposal.refresh_from_db()
    assert proposal.state == "refused"
    target = world.desired
    right = {"version": 3, "state": "live", "digest": target.desired_digest, "at_trial": 9}
    assert post(world.door(), "runner/observed", right).json()["ok"] is True
    before = Entry.objects.count()
    for _ in range(3):
        assert post(world.door(), "runner/observed", right).status_code == 200
    assert Entry.objects.count() == before, "a heartbeat is no entry"
    assert world.desired.live_version == 3


@pytest.mark.parametrize("number", [2**31, 2**63, 10**30])
def test_a_number_that_no_database_holds_is_refused(world: Any, number: int) -> None:
    body = {"version": number, "state": "idle", "digest": ""}
    with transaction.atomic():  # for the test's own transaction; outside of a test there is none
        answer = post(world.door(), "runner/observed", body)
        transaction.set_rollback(True)
    assert answer.status_code in {200, 422}, answer.content
    assert number < 2**63 or answer.json()["error"] == "invalid"


def test_a_token_can_not_flood_the_log(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals over the limit are answered, do nothing, and are no entry; others are unharmed."""
    few = REFUSALS_A_MINUTE // 10  # in less than a minute, however busy the machine is
    monkeypatch.setattr(api, "REFUSALS_A_MINUTE", few)
    for _ in range(few):
        assert post(world.door(), "proposals/1/approve", {}).status_code == 403
    before = Entry.objects.count()
    answer = post(world.door(), "proposals/1/approve", {})
    assert (answer.status_code, answer.json()["error"]) == (429, "slow_down")
    assert world.door().get("/api/v1/runner/desired").status_code == 429
    assert Entry.objects.count() == before
    world.runner, world.token = tokens.register(
        name="gpu-9", target=world.target, operator=world["linus"], actor=SYSTEM
    )
    assert world.door().get("/api/v1/runner/desired").status_code == 200


@pytest.mark.parametrize("path", ["openapi.json", "docs", ""])
def test_the_door_describes_itself_to_nobody(world: Any, path: str) -> None:
    assert Client().get(f"/api/v1/{path}").status_code == 404


def test_a_checkpoint_that_contradicts_the_log_stops_autonomy(world: Any) -> None:
    note = checkpoints.make()
    assert note is not None
    target = world.desired
    body = {"version": 1, "state": "live", "digest": target.desired_digest}
    post(world.door(), "runner/observed", {**body, "audit_checkpoint": note.note})
    assert not Stop.objects.exists()
    forged = note.note.replace("escapement", "escaped", 1)
    post(world.door(), "runner/observed", {**body, "audit_checkpoint": forged})
    assert Stop.objects.get().scope == "autonomy"
    post(world.door(), "runner/observed", {**body, "audit_checkpoint": forged})
    assert len(world.entries("audit.contradicted")) == 1, "the same again is no entry"
