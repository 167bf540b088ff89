"""Every page for every kind of reader, and what stands on it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.test import Client
from django.urls import get_resolver, reverse
from proposals import desk, live
from runs.models import Runner

from runner.foreign import read_foreign

if TYPE_CHECKING:
    from pytest_django.fixtures import SettingsWrapper

Story = dict[str, Any]
As = Callable[[str], Client]
OPEN_TO_ALL = {"login"}
ARGUMENTS: dict[str, dict[str, object]] = {
    "proposal": {"pk": 1}, "run": {"pk": 1}, "run-trials": {"pk": 1}, "entry": {"seq": 1},
    "target": {"name": "demo"},
}  # fmt: skip
NEEDS: dict[str, dict[str, object]] = {
    **{verb: {"pk": 1} for verb in ("shown", "approve", "reject", "withdraw", "rescreen")},
    **{verb: {"name": "demo"} for verb in ("rollback", "stop", "release")},
    **{f"operator-{verb}": {"pk": 1} for verb in ("new", "agree", "decline", "revoke")},
    **{f"dependency-{verb}": {"pk": 1} for verb in ("approve", "reject", "withdraw", "build")},
    "dependency": {"pk": 1},
    "lock-rollback": {"generation": 1},
    **ARGUMENTS,
}


def all_pages() -> list[str]:
    """The names of all addresses of the people's door."""
    names = [n for n in get_resolver("config.pages").reverse_dict if isinstance(n, str)]
    assert len(names) > 20
    return sorted(names)


def test_nobody_gets_in_without_an_account(db: None) -> None:
    """Deny by default: each address, read or write, sends the anonymous to log in."""
    for name in all_pages():
        address = reverse(name, kwargs=NEEDS.get(name, {}))
        client = Client(headers={"host": "localhost"})
        for answer in (client.get(address), client.post(address, {"reason": "x"})):
            if name in OPEN_TO_ALL:
                assert answer.status_code == 200
            else:
                assert answer.status_code == 302, address
                assert answer["Location"].startswith("/login/"), address


READABLE = [
    *("/", "/proposals/", "/proposals/new/", "/targets/", "/targets/demo/", "/runs/", "/audit/"),
    *("/packages/", "/packages/new/"),
    *("/policy/", "/audit/1/", "/proposals/?state=live", "/proposals/?q=nothing+like+it"),
]


def test_each_account_may_read_every_page(story: Story, as_: As) -> None:
    """Roles decide on verbs, not on reading; nothing inline, nothing from elsewhere."""
    pages = [*READABLE, *(f"/proposals/{p.pk}/" for p in story.values()), "/runs/1/"]
    pages = [p.replace("/runs/1/", f"/runs/{story['live'].run_id}/") for p in pages]
    for name in ("ada", "eve", "katherine", "linus", "mary"):
        client = as_(name)
        for page in pages if name == "ada" else pages[:8]:
            answer = client.get(page)
            assert answer.status_code == 200, page
            text = answer.content.decode()
            assert not re.search(r"<[^>]+\sstyle=", text), page
            assert not re.search(r"<[^>]+\son[a-z]+=", text), page
            assert not re.search(r"(src|href)=[\"']?(https?:)?//", text), page
            assert "nonce-" in answer["Content-Security-Policy"]
            assert "unsafe" not in answer["Content-Security-Policy"]


OUTSIDERS_VERBS = (
    ("approve", "pk"), ("reject", "pk"), ("withdraw", "pk"), ("rescreen", "pk"),
    ("rollback", "name"), ("stop", "name"), ("release", "name"),
    ("autonomy-stop", ""), ("autonomy-release", ""), ("export", ""),
)  # fmt: skip


@pytest.mark.parametrize("who", ["eve", "katherine", "mary"])
def test_no_verb_without_its_role(story: Story, as_: As, who: str) -> None:
    """An outsider, an auditor and a policy owner change nothing, and the try is on the log."""
    from audit.models import Entry
    from proposals.models import Activation, Proposal, Review, Stop

    def facts() -> list[Any]:
        tables = (Proposal, Activation, Review, Stop)
        counts = [t.objects.count() for t in tables]
        return [*counts, *Proposal.objects.order_by("pk").values_list("state", flat=True)]

    before, client = facts(), as_(who)
    body = {"reason": "because", "password": "correct horse battery staple", "activation": "1"}
    for verb, key in OUTSIDERS_VERBS:
        if verb == "export" and who == "katherine":
            continue  # auditors may
        entries = Entry.objects.count()
        arguments = {"pk": story["low"].pk} if key == "pk" else {"name": "demo"} if key else {}
        answer = client.post(reverse(verb, kwargs=arguments), body)
        assert answer.status_code in {403, 409}, verb
        assert facts() == before, verb
        assert Entry.objects.count() > entries or "release" in verb


def test_inbox_says_whose_turn_it_is_and_why(story: Story, as_: As) -> None:
    """A reviewer sees the review, an operator that others must decide, all see the screening."""
    ada = as_("ada").get("/").context["boxes"]
    mine, _, screening, recent = (box["rows"] for box in ada)
    assert [r["title"] for r in mine] == [story["high"].title, story["low"].title]
    assert "grace approved" in mine[0]["why"]
    assert {r["title"] for r in screening} == {story["running"].title, story["uploaded"].title}
    assert {r["state"] for r in recent} == {"live", "refused", "failed", "rejected"}
    linus = as_("linus").get("/").context["boxes"]
    assert [r["title"] for r in linus[1]["rows"]] == [story["high"].title, story["low"].title]
    assert "only the group reviewer" in linus[1]["rows"][0]["why"]
    grace = as_("grace").get("/").context["boxes"]
    assert [r["title"] for r in grace[0]["rows"]] == [story["low"].title]
    assert "approved this already" in grace[1]["rows"][0]["why"]


def test_what_changes_while_a_page_is_made_is_shown_again(
    story: Story, as_: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stamp that a page renews itself by is from before what it shows."""
    client, read = as_("grace"), desk.boxes

    def stamp() -> str:
        live._cache.clear()
        found = re.search(r"topics=inbox&amp;since=(\w{16})", client.get("/").content.decode())
        assert found
        return found[1]

    def and_then_it_changed(*arguments: Any) -> object:
        boxes = read(*arguments)
        assert Runner.objects.update(observed_state="refused")
        return boxes

    assert stamp() == live.fresh_stamp("inbox")
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(desk, "boxes", and_then_it_changed)
        assert stamp() != live.fresh_stamp("inbox")
    assert stamp() == live.fresh_stamp("inbox")


def test_empty_pages_say_what_to_do_next(db: None, factory: Any, var: object) -> None:
    """Nothing is there yet: each page still answers, with the next step."""
    factory.people()
    client = Client(headers={"host": "localhost"})
    client.login(username="ada", password=factory.PASSWORD)
    for page, words in (
        ("/", "Nothing waits for you"), ("/proposals/", "No proposal yet"),
        ("/targets/", "register_runner"), ("/runs/", "No run yet"), ("/audit/", "The log is empty"),
        ("/policy/", "nothing can be approved"), ("/proposals/new/", "no target"),
    ):  # fmt: skip
        answer = client.get(page)
        assert answer.status_code == 200
        assert words in answer.content.decode(), page


def test_proposal_page_has_all_that_a_decision_needs(story: Story, as_: As) -> None:
    """Verdict, diagnosis, both comparisons, finding with line link, effect, binding, history."""
    answer = as_("ada").get(f"/proposals/{story['low'].pk}/")
    text = answer.content.decode()
    for words in (
        "One person must approve (low risk)", "longest discard streak",
        "against the approved operator tabu", "against the mechanism that was live: tabu_long",
        "Asserts vanish under -O", "it would have gone otherwise", "An approval binds to",
        story["low"].commit, story["low"].digest, "review", "proposal.submitted",
    ):  # fmt: skip
        assert words in text, words
    link = re.search(r'href="#([^"]+-L28)"', text)
    assert link is not None
    assert f'id="{link[1]}"' in text
    mechanism = answer.context["files"][0]
    against_operator = mechanism.comparisons[0].diff
    assert (against_operator.added, against_operator.removed) == (3, 3)


def test_a_live_proposal_shows_both_digests(story: Story, as_: As) -> None:
    """What was approved, what the runner attested, and that they agree."""
    text = as_("eve").get(f"/proposals/{story['live'].pk}/").content.decode()
    assert "attested bytes" in text
    assert "the same" in text
    assert "DIFFERENT" not in text
    assert "25</b> trials since" in text


def test_run_page_counts_and_marks(story: Story, as_: As) -> None:
    """The numbers stand together: best, baseline, n, sigma, and who chose which trials."""
    run = story["live"].run
    answer = as_("eve").get(f"/runs/{run.pk}/")
    data = answer.context["plot_data"]
    assert [s["name"] for s in data["spans"]] == ["baseline", "null", "tabu_long"]
    assert data["spans"][-1]["last"] == 33
    assert sum(t["status"] == "failed" for t in data["trials"]) == answer.context["failed"] == 3
    assert answer.context["baseline_n"] == 3
    assert "habit (scripted, not a language model)" in answer.content.decode()
    assert answer.context["chart"].count('class="failed"') == 3


def test_the_trials_of_a_run_are_a_trace_that_others_read(
    story: Story, as_: As, tmp_path: Path
) -> None:
    run = story["live"].run
    answer = as_("eve").get(f"/runs/{run.pk}/trials.jsonl")
    rows = [json.loads(line) for line in answer.content.decode().splitlines()]
    assert [r["number"] for r in rows] == list(range(34))
    assert {r["digest"] for r in rows if r["mechanism"] == "tabu_long"} == {story["live"].digest}
    path = tmp_path / "run.jsonl"
    path.write_bytes(answer.content)
    trace = read_foreign(path)
    assert trace.broken_count == 0
    assert [t.metric for t in trace.trials] == [r["metric"] for r in rows]
    assert trace.best == rows[-1]["best_metric"]
    rest = as_("eve").get(f"/runs/{run.pk}/trials.jsonl?after=31").content.splitlines()
    assert [json.loads(line)["number"] for line in rest] == [32, 33]
    assert as_("eve").get("/runs/999/trials.jsonl").status_code == 404


def test_refused_load_is_loud(story: Story, as_: As) -> None:
    """A runner that refuses, is silent or stopped has a red banner on its target."""
    from datetime import timedelta

    from django.utils import timezone
    from runs.models import Runner

    Runner.objects.update(
        observed_state="refused", observed_reason="hash differs", observed_version=5,
        seen_at=timezone.now() - timedelta(minutes=10),
    )  # fmt: skip
    text = as_("eve").get("/targets/demo/").content.decode()
    assert "refused to load version 5" in text
    assert "hash differs" in text
    assert "demo-runner is silent" in text
    assert text.count("banner bad loud") == 2
    assert "demo-runner is silent" in as_("linus").get("/").content.decode()


def test_audit_filters_and_entry(story: Story, as_: As) -> None:
    """Filter by actor, verb, subject, day; an entry has its exact body; a bad day is said."""
    client = as_("katherine")
    for query, every in (
        ("actor=grace", lambda e: e.actor_name == "grace"),
        ("verb=review.approved", lambda e: e.verb == "review.approved"),
        (f"subject=proposal:{story['low'].pk}", lambda e: e.subject.endswith(str(story["low"].pk))),
    ):
        entries = client.get(f"/audit/?{query}").context["page"].entries
        assert entries
        assert all(every(e) for e in entries)
    assert client.get("/audit/?since=2999-01-01").context["page"].total == 0
    bad = client.get("/audit/?since=tomorrow")
    assert bad.status_code == 400
    assert "is no day" in bad.content.decode()
    page = client.get("/audit/1/")
    assert page.context["intact"]
    assert "policy.loaded" in page.content.decode()
    assert client.get("/audit/9999/").status_code == 404


def test_policy_page(story: Story, as_: As) -> None:
    """The exact text, its digest, its mode."""
    answer = as_("eve").get("/policy/")
    text = answer.content.decode()
    assert answer.context["version"].digest in text
    assert answer.context["mode"] == "manual"
    assert "release_quorum" in text


def test_error_pages_say_what_happened(story: Story, as_: As, settings: SettingsWrapper) -> None:
    """404, 403 for a form without its token, 500: each in our own words, none with our insides."""
    client = as_("ada")
    missing = client.get("/proposals/999999/")
    assert missing.status_code == 404
    assert "There is nothing here" in missing.content.decode()
    assert "sse-connect" not in missing.content.decode(), "it renews itself for nothing"
    strict = Client(enforce_csrf_checks=True, headers={"host": "localhost"})
    strict.cookies = client.cookies
    refused = strict.post("/autonomy/stop", {"reason": "x"})
    assert refused.status_code == 403
    assert "Reload the page" in refused.content.decode()
    settings.MECHANISMS_REPOSITORY = settings.KEYS / "gone"
    gone = client.get(f"/proposals/{story['low'].pk}/")
    assert gone.status_code == 200
    assert (
        "The code can&#x27;t be shown" in gone.content.decode()
        or "can't be shown" in gone.content.decode()
    )
    client.raise_request_exception = False
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": []}]
    broken = client.get("/policy/")
    assert broken.status_code == 500
    assert b"Something broke" in broken.content
    assert b"Traceback" not in broken.content
