"""What people do on the pages: each verb, each refusal, and what is kept of what they typed."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

Story = dict[str, Any]
As = Callable[[str], Client]
REASON = "Only two parameters change."


def open_everything(client: Client, pk: int) -> None:
    """Open each file and each finding, as a reader without script does."""
    context = client.get(f"/proposals/{pk}/").context
    for item in context["remaining"]:
        answer = client.post(f"/proposals/{pk}/opened", {"item": item.key, "digest": item.digest})
        assert answer.status_code == 302


def approval(client: Client, pk: int, factory: Any, **changed: str) -> dict[str, str]:
    """The form of an approval, filled in."""
    digest = client.get(f"/proposals/{pk}/").context["binding_digest"]
    return {"reason": REASON, "password": factory.PASSWORD, "binding_digest": digest, **changed}


def test_approve(story: Story, as_: As, factory: Any) -> None:
    """Open everything, say why, sign with the password: one review, bound to what was shown."""
    low, client = story["low"], as_("ada")
    open_everything(client, low.pk)
    answer = client.post(reverse("approve", args=[low.pk]), approval(client, low.pk, factory))
    assert answer.status_code == 302
    low.refresh_from_db()
    assert low.state == "approved"
    review = low.reviews.get()
    assert review.reviewer.username == "ada"
    assert set(review.shown) == {
        "file:mechanisms/tabu_wide.py", "file:tests/test_tabu_wide.py", "finding:bandit:0",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("opened", "changed", "words"),
    [
        (False, {}, "3 of 3 items are not opened yet"),
        (True, {"password": "wrong"}, "the password is wrong"),
        (True, {"binding_digest": "0" * 64}, "it changed since you opened the page"),
        (True, {"reason": "  "}, "say why"),
    ],
)
def test_premature_approval_is_refused(
    story: Story, as_: As, factory: Any, *, opened: bool, changed: dict[str, str], words: str
) -> None:
    """Not everything opened, wrong password, a stale page, no reason: refused, logged, kept."""
    from audit.models import Entry

    low, client = story["low"], as_("ada")
    if opened:
        open_everything(client, low.pk)
    body = approval(client, low.pk, factory, **changed)
    before = Entry.objects.count()
    answer = client.post(reverse("approve", args=[low.pk]), body)
    assert answer.status_code == 409
    text = answer.content.decode()
    assert words in text
    assert body["reason"] in text
    assert factory.PASSWORD not in text
    low.refresh_from_db()
    assert low.state == "passed"
    assert not low.reviews.exists()
    newest = Entry.objects.first()
    assert newest is not None
    assert (newest.verb, Entry.objects.count()) == ("review.denied", before + 1)


def test_what_was_opened_before_it_changed_does_not_count(
    story: Story, as_: As, factory: Any
) -> None:
    """Another finding is another thing to read; a made-up item is none."""
    low, client = story["low"], as_("ada")
    open_everything(client, low.pk)
    client.post(f"/proposals/{low.pk}/opened", {"item": "file:mechanisms/x.py", "digest": "0" * 64})
    screening = low.screenings.first()
    checks = screening.report["checks"]
    bandit = next(c for c in checks if c["name"] == "bandit")
    bandit["findings"][0]["message"] = "Something worse"
    screening.save()
    remaining = client.get(f"/proposals/{low.pk}/").context["remaining"]
    assert [item.key for item in remaining] == ["finding:bandit:0"]


def test_the_requester_may_not_approve(story: Story, as_: As, factory: Any) -> None:
    """Ada uploaded it: the page offers her no approval, and the door refuses one."""
    mine = factory.screen(story["uploaded"])
    client = as_("ada")
    page = client.get(f"/proposals/{mine.pk}/")
    assert any("requested this" in reason for reason in page.context["cannot"])
    assert 'name="binding_digest"' not in page.content.decode()
    open_everything(client, mine.pk)
    answer = client.post(reverse("approve", args=[mine.pk]), approval(client, mine.pk, factory))
    assert answer.status_code == 409
    assert not mine.reviews.exists()


def test_reject_and_withdraw(story: Story, as_: As) -> None:
    """A reviewer's no is enough; the requester may take back what is his."""
    low, mine = story["low"], story["uploaded"]
    empty = as_("grace").post(reverse("reject", args=[low.pk]), {"reason": ""})
    assert empty.status_code == 409
    as_("grace").post(reverse("reject", args=[low.pk]), {"reason": "Too wide."})
    as_("ada").post(reverse("withdraw", args=[mine.pk]), {"reason": "A better one comes."})
    low.refresh_from_db()
    mine.refresh_from_db()
    assert (low.state, mine.state) == ("rejected", "withdrawn")
    text = as_("eve").get(f"/proposals/{low.pk}/").content.decode()
    assert "Too wide." in text


def test_screen_again_voids_what_was_opened_under_the_old_evidence(story: Story, as_: As) -> None:
    """A reviewer asks for another look; the proposal is back in the queue."""
    low = story["low"]
    answer = as_("ada").post(reverse("rescreen", args=[low.pk]), {"reason": "the image is new"})
    assert answer.status_code == 302
    low.refresh_from_db()
    assert low.state == "submitted"


def test_stop_and_release_take_a_quorum(story: Story, as_: As) -> None:
    """Anyone entitled stops; two reviewers release; the banner stands on every page meanwhile."""
    as_("linus").post(reverse("stop", args=["demo"]), {"reason": "losses look wrong"})
    assert "Target demo is stopped" in as_("eve").get("/policy/").content.decode()
    assert "Agree to release" in as_("ada").get("/").content.decode()
    as_("ada").post(reverse("release", args=["demo"]), {"reason": "it was the plot"})
    page = as_("ada").get("/targets/demo/").content.decode()
    assert "1 of 2 reviewers agree" in page
    assert "You have agreed already" in page
    as_("grace").post(reverse("release", args=["demo"]), {"reason": "yes, the plot"})
    assert "is stopped" not in as_("eve").get("/targets/demo/").content.decode()


def test_kill_switch_of_autonomy(story: Story, as_: As) -> None:
    """Stopped with a reason, kept if it is empty, shown on the page."""
    assert as_("ada").post(reverse("autonomy-stop"), {"reason": ""}).status_code == 409
    as_("ada").post(reverse("autonomy-stop"), {"reason": "too quick"})
    assert "too quick" in as_("eve").get("/targets/").content.decode()


def test_roll_back_to_a_version_that_was_live(story: Story, as_: As) -> None:
    """The desired state goes back; a version that never was live is refused, the reason kept."""
    from proposals.models import Activation
    from runs.models import Target

    never = Activation.objects.get(state="refused")
    client = as_("linus")
    refused = client.post(
        reverse("rollback", args=["demo"]),
        {"activation": str(never.pk), "reason": "older is safer"},
    )
    assert refused.status_code == 409
    assert "older is safer" in refused.content.decode()
    seed = Activation.objects.get(kind="seed")
    client.post(reverse("rollback", args=["demo"]), {"activation": str(seed.pk), "reason": "worse"})
    target = Target.objects.get(name="demo")
    assert (target.desired_mechanism, target.live_mechanism) == ("null", "tabu_long")
    story["live"].refresh_from_db()
    assert story["live"].state == "rolled_back"


def test_upload(story: Story, as_: As, factory: Any) -> None:
    """A person's draft takes the same road; what is refused at the door keeps the text."""
    files = factory.new_code("by_hand")
    body = {
        "target": "demo", "name": "by_hand", "title": "By hand", "summary": "why",
        "source": files["mechanisms/by_hand.py"].replace("\n", "\r\n"),
        "test": files["tests/test_by_hand.py"],
    }  # fmt: skip
    client = as_("grace")
    for changed in ({"name": "../../etc"}, {"name": "tabu"}, {"source": "def ("}, {"target": "x"}):
        refused = client.post("/proposals/new/", {**body, **changed})
        assert refused.status_code == 422, changed
        assert "By hand" in refused.content.decode()
    big = io.BytesIO(b"#" * 70_000)
    big.name = "big.py"
    assert client.post("/proposals/new/", {**body, "source_file": big}).status_code == 422
    taken = client.post("/proposals/new/", body)
    assert taken.status_code == 302
    from proposals.models import Proposal

    made = Proposal.objects.get(name="by_hand")
    assert made.requester.username == "grace"
    from proposals import branches

    assert b"\r" not in branches.living().read(made.commit, made.mechanism_path)


def test_export_is_a_bundle_and_an_act(story: Story, as_: As) -> None:
    """The button gives a ZIP; the log says who took it."""
    from audit.models import Entry

    answer = as_("katherine").post(reverse("export"))
    assert answer.status_code == 200
    names = zipfile.ZipFile(io.BytesIO(b"".join(answer.streaming_content))).namelist()
    assert any(n.endswith("verify.py") for n in names)
    assert Entry.objects.filter(verb="audit.exported", actor_name="katherine").count() == 1


def test_log_in_is_on_the_log_and_bounded(story: Story, factory: Any) -> None:
    """Both outcomes are recorded; after ten tries for one name the door is closed for a while."""
    from audit.models import Entry

    client = Client(headers={"host": "localhost"})
    good = client.post("/login/", {"username": "ada", "password": factory.PASSWORD})
    assert good.status_code == 302
    assert Entry.objects.filter(verb="auth.login", subject="user:ada").count() == 1
    stranger = Client(headers={"host": "localhost"})
    codes = [
        stranger.post("/login/", {"username": "Grace", "password": "guess"}).status_code
        for _ in range(11)
    ]
    assert codes == [200] * 10 + [429]
    assert Entry.objects.filter(verb="auth.login_failed").count() == 10
    right = stranger.post("/login/", {"username": "grace", "password": factory.PASSWORD})
    assert right.status_code == 429
    assert right["Retry-After"]
