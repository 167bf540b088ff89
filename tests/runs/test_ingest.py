"""Runs and trials over HTTP: idempotent, strict, and never against what is stored."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from audit import keys
from audit.actors import SYSTEM
from audit.models import Entry
from django.contrib.auth.models import User
from django.test import Client
from runs import display, ingest, tokens
from runs.models import Run, Runner, Target, Trial

DIGEST = "ab" * 32
VERSIONS = {1: DIGEST, 2: "cd" * 32}


@pytest.fixture
def door(db: None, settings: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Client:
    settings.KEYS = tmp_path / "keys"
    keys.ensure_keys()
    monkeypatch.setattr(ingest, "_version_digest", [lambda _, version: VERSIONS.get(version)])
    return Client(headers={"authorization": f"Bearer {register('gpu-1')}"})


def register(name: str) -> str:
    target, _ = Target.objects.get_or_create(name="demo")
    operator, _ = User.objects.get_or_create(username="linus")
    return tokens.register(name=name, target=target, operator=operator, actor=SYSTEM)[1]


def post(client: Client, path: str, body: Any) -> Any:
    data = body if isinstance(body, str) else json.dumps(body)
    return client.post(f"/api/v1/runner/{path}", data=data, content_type="application/json")


def a_run(**more: Any) -> dict[str, Any]:
    return {
        "run_id": str(uuid.uuid4()),
        "task": "gpt",
        "task_digest": "ef" * 32,
        "space": {"knobs": {}, "constraints": []},
        "host": {"cpu": "two cores"},
        "prior": "habit (scripted, not a language model)",
        "seed": 7,
        "planned_trials": 10,
        "started_at": "2026-11-21T03:00:00Z",
        **more,
    }


def a_trial(number: int, **more: Any) -> dict[str, Any]:
    return {
        "number": number,
        "config": {"LR": 0.1},
        "changes": {"LR": 0.1},
        "metric": 1.25,
        "status": "kept",
        "seconds": 1.5,
        "best_metric": 1.25,
        "digest": DIGEST,
        "version": 1,
        "hooks": {"propose_calls": 1},
        "finished_at": "2026-11-21T03:01:00Z",
        **more,
    }


@pytest.fixture
def run(door: Client) -> str:
    report = a_run()
    assert post(door, "runs", report).json() == {"ok": True, "last_trial": None}
    return str(report["run_id"])


def send(door: Client, run: str, *trials: dict[str, Any]) -> Any:
    return post(door, "trials", {"run_id": run, "trials": list(trials)})


def test_trials_are_stored_once_and_the_last_number_answered(door: Client, run: str) -> None:
    assert send(door, run, a_trial(0), a_trial(1)).json()["last_trial"] == 1
    assert send(door, run, a_trial(1), a_trial(2)).json()["last_trial"] == 2
    assert Trial.objects.count() == 3
    assert Trial.objects.filter(hooks__propose_calls=1).count() == 3


@pytest.mark.parametrize(
    "change",
    [
        {"metric": 1.24}, {"status": "discarded"}, {"changes": {}}, {"digest": "", "version": 0},
        {"hooks": {"propose_calls": 2}}, {"message": "late"}, {"config": {"LR": 0.2}},
    ],
)  # fmt: skip
def test_a_trial_that_contradicts_the_stored_one_is_refused(
    door: Client, run: str, change: dict[str, Any]
) -> None:
    send(door, run, a_trial(0))
    answer = send(door, run, {**a_trial(0), **change}, a_trial(1))
    assert (answer.status_code, answer.json()["error"]) == (409, "conflict")
    assert Trial.objects.get().metric == 1.25
    assert json.loads(Entry.objects.latest("seq").body)["data"]["code"] == "conflict"


def test_a_gap_is_refused_and_a_batch_is_stored_whole_or_not_at_all(door: Client, run: str) -> None:
    answer = send(door, run, a_trial(0), a_trial(2))
    assert (answer.status_code, answer.json()["error"]) == (409, "gap")
    assert not Trial.objects.exists()


@pytest.mark.parametrize("change", [{"version": 2}, {"version": 9}, {"digest": ""}])
def test_a_digest_that_its_version_does_not_have_is_refused(
    door: Client, run: str, change: dict[str, Any]
) -> None:
    answer = send(door, run, {**a_trial(0), **change})
    assert (answer.status_code, answer.json()["error"]) == (409, "conflict")
    assert not Trial.objects.exists()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (json.dumps(a_trial(0)).replace("1.25", "NaN"), 422),
        (json.dumps(a_trial(0)).replace("1.25", "1e999"), 422),
        (json.dumps(a_trial(0, metric=None)), 422),
        (json.dumps(a_trial(0, status="failed")), 422),
        (json.dumps(a_trial(0, status="great")), 422),
        (json.dumps(a_trial(-1)), 422),
        (json.dumps(a_trial(0, seconds=-1)), 422),
        (json.dumps(a_trial(0, surprise=1)), 422),
        (json.dumps(a_trial(0, message="x" * 5000)), 422),
        (json.dumps(a_trial(0, mechanism="<b>tabu</b>")), 422),
        (json.dumps(a_trial(0, mechanism="\u202eubat")), 422),
        (json.dumps(a_trial(0, mechanism="tabu\n")), 422),
    ],
)
def test_what_is_no_trial_is_refused(door: Client, run: str, body: str, status: int) -> None:
    answer = post(door, "trials", f'{{"run_id": "{run}", "trials": [{body}]}}')
    assert answer.status_code == status, answer.content
    assert answer.json()["error"]
    assert not Trial.objects.exists()


def test_text_that_no_database_holds_is_stored_escaped(door: Client, run: str) -> None:
    trial = a_trial(0, reason="a\x00b", config={"x\x00": "\ud800"})
    assert send(door, run, trial).status_code == 200
    assert send(door, run, trial).status_code == 200
    stored = Trial.objects.get()
    assert stored.reason == "a\\x00b"
    assert "\x00" not in json.dumps(stored.config)


def test_a_run_may_grow_but_not_become_another_one(door: Client) -> None:
    report = a_run()
    post(door, "runs", report)
    grown = {**report, "state": "finished", "sigma": 0.01, "planned_trials": 20, "guidance": "g"}
    assert post(door, "runs", grown).status_code == 200
    stored = Run.objects.get()
    assert (stored.state, stored.sigma, stored.planned_trials) == ("finished", 0.01, 20)
    for change in ({"task": "other"}, {"seed": 8}, {"minimize": False}, {"metric": "loss"}):
        answer = post(door, "runs", {**grown, **change})
        assert (answer.status_code, answer.json()["error"]) == (409, "conflict")


def test_a_run_belongs_to_its_runner(door: Client, run: str) -> None:
    other = Client(headers={"authorization": f"Bearer {register('gpu-2')}"})
    assert post(other, "runs", a_run(run_id=run)).json()["error"] == "conflict"
    assert send(other, run, a_trial(0)).json()["error"] == "unknown_run"
    assert send(door, str(uuid.uuid4()), a_trial(0)).json()["error"] == "unknown_run"
    assert post(door, "runs", a_run(run_id="-" * 36)).json()["error"] == "invalid"
    assert not Trial.objects.exists()


def test_a_new_token_voids_the_old_one(door: Client) -> None:
    register("gpu-1")
    assert post(door, "runs", a_run()).status_code == 401
    assert Runner.objects.count() == 1


# --- Level 2 ---


def an_outcome(after: int, outcome: str, **more: Any) -> dict[str, Any]:
    return {
        "draft_id": str(uuid.uuid5(uuid.NAMESPACE_OID, str(after))),
        "after_trial": after,
        "outcome": outcome,
        "generator": "a model",
        "at": "2026-11-21T03:10:00Z",
        **more,
    }


def shown(run: str) -> str:
    stored = Run.objects.get(run_id=run)
    page = Client()
    page.force_login(User.objects.get(username="linus"))
    return str(page.get(f"/runs/{stored.pk}/").content.decode())


def test_what_level_2_did_is_kept_and_shown(door: Client, run: str) -> None:
    assert "This run has no Level 2." in shown(run)
    outcomes = [
        an_outcome(10, "drafted", title="tabu, shorter"),
        an_outcome(20, "none_selected", reason="no mechanism was selected"),
        an_outcome(30, "failed", reason="<img src=x onerror=alert(1)> half JSON"),
        an_outcome(40, "refused", reason="name_exists: choose another name"),
        an_outcome(50, "drafting", at=None),
    ]
    level2 = {"looks": 9, "outcomes": outcomes}
    for _ in range(2):  # sent twice, kept once
        assert post(door, "runs", {**a_run(run_id=run), "level2": level2}).status_code == 200
    text = shown(run)
    words = ("tabu, shorter", "no mechanism was selected", "half JSON", "name_exists", "a model")
    for word in (*words, "not yet", "none selected", "4 earlier ones are not shown"):
        assert word in text
    assert "<img src=x" not in text
    rows, older = display.looks(Run.objects.get())
    assert [row.after_trial for row in rows] == [50, 40, 30, 20, 10]
    assert (older, {row.number for row in rows}) == (4, {0})


@pytest.mark.parametrize(
    "wrong",
    [
        {"looks": -1},
        {"looks": 31, "outcomes": [an_outcome(n, "drafted") for n in range(31)]},
        {"looks": 1, "outcomes": [an_outcome(1, "approved")]},
        {"looks": 1, "outcomes": [an_outcome(1, "failed", reason="x" * 1001)]},
        {"looks": 1, "outcomes": [an_outcome(1, "drafted", proposal=7)]},
        {"looks": 1, "outcomes": [an_outcome(1, "drafted", at="yesterday")]},
        {"looks": 1, "outcomes": [an_outcome(1, "drafted", draft_id="1" * 36)]},
    ],
)
def test_an_outcome_out_of_bounds_is_refused(door: Client, run: str, wrong: Any) -> None:
    answer = post(door, "runs", {**a_run(run_id=run), "level2": wrong})
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid")
    assert Run.objects.get().level2 is None


# --- noise, result, memory ---

NOISE = {
    "sigma": 0.02, "degrees": 5, "mean": 3.1, "n": 7, "runs": 2, "host_key": "12" * 32,
    "host": "gpu-box (2 cores)",
}  # fmt: skip
RULES = {"keep_sigma": 2.0, "confirmations": 1, "parallel": 2, "confirming": 4, "baseline": 3}


def test_noise_rules_and_result_of_a_run_are_kept_and_shown(door: Client, run: str) -> None:
    result = {"trial": 3, "metrics": [3.0, 3.02], "gain": 0.09, "sigmas": 4.5, "low": 2, "high": 7}
    more = {"sigma": 0.02, "noise": NOISE, "measuring": RULES, "result": result}
    assert post(door, "runs", {**a_run(run_id=run), **more}).status_code == 200
    stored = Run.objects.get()
    assert stored.noise == {**NOISE, "left_out": 0}
    assert display.result_words(stored) == (
        "+4.5 sigma (95 %: +2.0 to +7.0; n = 2 against 7)",
        "good",
    )
    told = display.measured(stored)
    assert told.noise_words == "of 7 baseline measurements in 2 runs pooled, on gpu-box (2 cores)"
    assert told.rule.startswith("a gain above 2 sigma is kept; a smaller one")
    assert "4 confirming" in told.trainings
    page = Client()
    page.force_login(User.objects.get(username="linus"))
    text = page.get(f"/runs/{stored.pk}/").content.decode()
    for words in ("measured anew", "+4.5 sigma (95 %", "gpu-box (2 cores)", "4 confirming"):
        assert words in text


def test_a_name_that_no_database_holds_is_refused(door: Client) -> None:
    answer = post(door, "runs", a_run(metric="m" * 61))
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid")
    assert "metric" in answer.json()["message"]


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (None, "when the run ends"),
        ({"trial": 0}, "no trial was better"),
        ({"trial": 2, "metrics": [], "failed": 3}, "failed each time"),
        ({"trial": 2, "metrics": [1.0], "gain": 0.5}, "noise not known"),
    ],
)
def test_every_result_has_its_words(
    door: Client, run: str, result: dict[str, Any] | None, words: str
) -> None:
    assert post(door, "runs", {**a_run(run_id=run), "result": result}).status_code == 200
    assert words in display.result_words(Run.objects.get())[0]


@pytest.mark.parametrize(
    "result",
    [
        {"trial": 2, "metrics": [1.0]},
        {"trial": 2, "gain": 0.5},
        {"trial": 2, "metrics": [1.0], "gain": 0.5, "sigmas": 4.0},
        {"trial": 2, "metrics": [1.0], "gain": 0.5, "low": 1.0, "high": 2.0},
    ],
)
def test_half_a_result_is_refused(door: Client, run: str, result: dict[str, Any]) -> None:
    """A gain without measurements, or in sigmas without an interval, is none."""
    assert post(door, "runs", {**a_run(run_id=run), "result": result}).status_code == 422
    assert post(door, "runs", {**a_run(run_id=run), "sigma": -1.0}).status_code == 422


def remembered(door: Client, task_digest: str, run: str = "") -> Any:
    answer = door.get(f"/api/v1/runner/memory?task_digest={task_digest}&run_id={run}")
    assert answer.status_code == 200, answer.content
    return answer.json()["runs"]


def test_memory_is_of_the_own_target_and_task_without_free_text(door: Client, run: str) -> None:
    post(door, "runs", {**a_run(run_id=run), "sigma": 0.02, "noise": NOISE})
    send(door, run, a_trial(0, repeats=[1.0, 1.5]), a_trial(1, reason="secret", message="words"))
    digest = a_run()["task_digest"]
    (found,) = remembered(door, digest)
    assert (found["run_id"], found["runner"], found["host_key"]) == (
        run,
        "gpu-1",
        NOISE["host_key"],
    )
    assert (found["baseline"], found["trials_in_all"]) == ([1.0, 1.5], 2)
    assert found["trials"][0]["measurements"] == 2
    assert "secret" not in json.dumps(found)
    assert remembered(door, digest, run) == []  # not the run that asks
    assert remembered(door, "00" * 32) == []
    other, _ = Target.objects.get_or_create(name="other")
    _, token = tokens.register(
        name="stranger", target=other, operator=User.objects.get(username="linus"), actor=SYSTEM
    )
    stranger = Client(headers={"authorization": f"Bearer {token}"})
    assert remembered(stranger, digest) == []
    assert Client().get(f"/api/v1/runner/memory?task_digest={digest}&run_id=").status_code == 401


def test_memory_is_bounded(door: Client, run: str) -> None:
    for start in range(0, 150, 50):
        send(door, run, *[a_trial(n) for n in range(start, start + 50)])
    (found,) = remembered(door, a_run()["task_digest"])
    assert (found["trials_in_all"], len(found["trials"])) == (150, 100)
    assert found["trials"][0]["number"] == 0
    assert found["trials"][-1]["number"] == 149
