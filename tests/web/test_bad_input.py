"""What people may send that no form would: each ends in a named state, and none in a 500."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

Story = dict[str, Any]
As = Callable[[str], Client]
LONG = "x" * 100_000
DIGITS = "9" * 5000  # Python refuses to read them as a number


def test_numbers_that_are_none_name_nothing(story: Story, as_: As) -> None:
    client = as_("ada")
    for raw in (DIGITS, "\u0663", "-1", "1e3", ""):
        body = {"activation": raw, "reason": "because"}
        answer = client.post(reverse("rollback", kwargs={"name": "demo"}), body)
        assert answer.status_code == 409, raw[:9]
        assert client.get("/policy/", {"version": raw}).status_code == 200
        asked = {"package": "tiny", "version": raw, "proposal": raw, "reason": "because"}
        assert client.post(reverse("dependency-new"), asked).status_code == 422
        assert client.get("/audit/", {"page": raw}).status_code == 200


@pytest.mark.parametrize("typed", ["\x00", "a\x00b\x07", LONG, "\u202ereversed", "<script>x"])
def test_a_reason_of_any_kind_is_kept_readable_or_refused(
    story: Story, as_: As, typed: str
) -> None:
    """Reasons are kept as every database can hold them, and shown with nothing hidden in them."""
    from proposals.models import Stop

    client = as_("ada")
    answer = client.post(reverse("autonomy-stop"), {"reason": typed})
    if typed == LONG:
        assert answer.status_code == 409
        assert "at most 4000 characters" in answer.content.decode()
        assert not Stop.objects.exists()
        return
    assert answer.status_code == 302
    reason = Stop.objects.get().reason
    assert "\x00" not in reason
    page = client.get("/targets/").content.decode()
    assert not {"\x00", "\x07", "\u202e"} & set(page), "the banner of each page, and the target's"
    assert "<script>x" not in page


def test_a_name_of_any_kind_is_refused_at_the_door(story: Story, as_: As) -> None:
    client = as_("ada")
    for name in ("\x00" * 100, LONG, "../../etc/passwd", "a\nb", "\u202e", ""):
        body = {"name": name, "title": "t", "target": "demo", "source": "x = 1", "test": "x = 1"}
        assert client.post(reverse("upload"), body).status_code == 422
        body["target"] = name
        assert client.post(reverse("upload"), body).status_code == 422
        body = {"package": name, "version": name, "modules": name, "reason": "because"}
        assert client.post(reverse("dependency-new"), body).status_code == 422
        assert client.get("/proposals/", {"q": name, "state": name}).status_code == 200


def test_the_same_form_twice_decides_once(story: Story, as_: As, factory: Any) -> None:
    """A double click, or the back button: the second one is told so, and nothing is undone."""
    from proposals import shown, views
    from proposals.models import Proposal

    client, subject = as_("ada"), story["low"]
    page = client.get(f"/proposals/{subject.pk}/")
    for item in views.items_of(subject):
        body = {"item": item.key, "digest": item.digest}
        client.post(reverse("shown", args=[subject.pk]), body)
    assert not shown.missing(views.items_of(subject), shown.opened(client.session, subject.pk))
    body = {"reason": "right", "password": factory.PASSWORD}
    body["binding_digest"] = page.context["binding_digest"]
    codes = [client.post(reverse("approve", args=[subject.pk]), body).status_code for _ in "ab"]
    assert codes == [302, 409]
    assert Proposal.objects.get(pk=subject.pk).state == "approved"
    assert subject.reviews.filter(standing="valid", decision="approve").count() == 1


def test_lists_ask_as_often_for_many_rows_as_for_few(
    story: Story, as_: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext
    from proposals import live
    from proposals.models import OperatorEntry, Proposal
    from runs.models import Run

    # What is kept for a second is not what this is about: asked for before, it is kept throughout.
    monkeypatch.setattr(live, "TICK_SECONDS", 3600.0)
    client = as_("ada")

    def asked() -> dict[str, int]:
        counts = {}
        for page in ("/", "/proposals/", "/runs/", "/operators/"):
            client.get(page)
            with CaptureQueriesContext(connection) as queries:
                assert client.get(page).status_code == 200
            counts[page] = len(queries)
        return counts

    few, waiting, run = asked(), story["low"], Run.objects.earliest("pk")
    trial = run.trials.latest("number")
    for number in range(8):
        screening = waiting.screenings.latest("pk")
        copy = Proposal.objects.get(pk=waiting.pk)
        copy.pk, copy.draft_id, copy.name = None, f"{number:032x}", f"copy_{number}"
        copy.recognised = "tabu"
        copy.save()
        screening.pk, screening.proposal = None, copy
        screening.save()
        again = Run.objects.get(pk=run.pk)
        again.pk, again.run_id = None, f"{number + 100:032x}"
        again.save()
        trial.pk, trial.run = None, again
        trial.save()
        entry = OperatorEntry.objects.get(name="tabu")
        entry.pk, entry.name, entry.standing = None, f"copy_{number}", "nominated"
        entry.kind, entry.proposal = "people", waiting
        entry.save()
    assert asked() == few


def test_a_log_that_does_not_hold_says_so_on_the_page_and_at_the_door(
    story: Story, as_: As
) -> None:
    """An act that can't be recorded does not happen, and nobody reads "something broke"."""
    from audit import triggers
    from django.db import connection
    from proposals.models import Stop

    client = as_("ada")
    triggers.remove(connection)
    try:
        answer = client.post(reverse("autonomy-stop"), {"reason": "because"})
        door = Client(headers={"host": "localhost"}).get("/api/v1/runner/desired")
    finally:
        triggers.install(connection)
    assert answer.status_code == 503
    assert "Nothing was done" in answer.content.decode()
    assert not Stop.objects.exists()
    assert (door.status_code, door.json()["error"]) == (503, "audit_log")
