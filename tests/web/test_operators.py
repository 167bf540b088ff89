"""The library's page and its forms; the replay's chart and the posture on a proposal's page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.test import Client
from proposals import plots
from proposals.models import OperatorEntry

from sandbox.prediction import SEARCHES

Story = dict[str, Any]
As = Callable[[str], Client]
BOUNDS = {
    **{"low-TENURE": "4", "high-TENURE": "18", "low-MAX_ASKS": "1", "high-MAX_ASKS": "5"},
    **{"low-STEP": "0.1", "high-STEP": "0.2", "low-ATTEMPTS": "100", "high-ATTEMPTS": "300"},
}


def test_the_walk_of_an_operator(story: Story, as_: As, factory: Any) -> None:
    """Nominated by one, agreed by another, listed with its bounds, revoked; each with a reason."""
    live = story["live"]
    grace, katherine = as_("grace"), as_("katherine")
    assert f"/operators/new/{live.pk}/" in grace.get(f"/proposals/{live.pk}/").content.decode()
    form = {**BOUNDS, "reason": "It held for weeks.", "password": factory.PASSWORD}
    address = f"/operators/new/{live.pk}/"
    assert "Lowest TENURE" in grace.get(address).content.decode()
    for wrong, says in (
        ({"password": "no"}, "the password is wrong"),
        ({"low-TENURE": "many"}, "is no number"),
        ({"low-TENURE": "15"}, "must lie within its bounds"),
        ({"reason": ""}, "say why"),
    ):
        refused = grace.post(address, {**form, **wrong})
        assert refused.status_code == 409
        assert says in refused.content.decode()
    assert katherine.post(address, form).status_code == 409
    assert not OperatorEntry.objects.filter(name="tabu_long").exists()

    assert grace.post(address, form).status_code == 302
    made = OperatorEntry.objects.get(name="tabu_long")
    ada = as_("ada")
    shown = ada.get("/operators/").content.decode()
    assert "waits for people" in shown
    bound = shown.split('name="terms_digest" value="')[1].split('"')[0]
    word = {"terms_digest": bound, "reason": "So did I.", "password": factory.PASSWORD}
    assert ada.post(f"/operators/{made.pk}/agree", {**word, "password": ""}).status_code == 409
    assert ada.post(f"/operators/{made.pk}/agree", word).status_code == 302
    made.refresh_from_db()
    assert made.standing == OperatorEntry.Standing.APPROVED
    listed = katherine.get("/operators/").content.decode()
    assert "ada, grace" in listed or "grace, ada" in listed
    assert "4 to 18" in listed
    assert "/revoke" not in listed  # an auditor reads

    assert ada.post(f"/operators/{made.pk}/revoke", {"reason": ""}).status_code == 409
    assert ada.post(f"/operators/{made.pk}/revoke", {"reason": "It misled us."}).status_code == 302
    assert "It misled us." in ada.get("/operators/").content.decode()


def test_a_broken_entry_is_loud_on_every_page(story: Story, as_: As) -> None:
    OperatorEntry.objects.filter(name="tabu").update(signature="00" * 64)
    for page in ("/", "/targets/", f"/proposals/{story['live'].pk}/"):
        assert (
            "An entry of the library of operators does not hold"
            in as_("eve").get(page).content.decode()
        )
    assert "COUNTS FOR NOTHING" in as_("eve").get("/operators/").content.decode()


def test_a_proposal_shows_gain_lane_posture_and_advisories(story: Story, as_: As) -> None:
    page = as_("ada").get("/proposals/5/").content.decode()
    for words in (
        "Predicted gain", "95 % interval", f"n = {SEARCHES} paired searches", "no promise",
        "sigma ahead of the null mechanism", "candidates proposed", "trials judged",
        "It is the approved operator tabu with other parameters, within its bounds",
        "How this was looked at", "System calls were filtered", "held",
        "days old today (the policy allows 30)", "measured: gpt on 2 CPU cores",
    ):  # fmt: skip
        assert words in page, words
    assert page.count('class="chart gain"') == 2  # one for wide screens and paper, one for phones


def test_the_chart_is_escaped_and_bears_odd_numbers() -> None:
    point = {"value": 0.0, "low": None, "high": None, "n": 1}
    flat = {"curves": {n: [point] * 3 for n in ("null", "mechanism", "difference")}, "sigma": 0.1}
    chart = plots.gain_chart(flat, "<script>")
    assert "<script>" not in chart
    assert "nan" not in chart
    assert plots.gain_chart({"curves": {}, "sigma": 0.1}, "none") == ""
    wild = {"value": -1e9, "low": -2e9, "high": 1e-9, "n": 3}
    far = {**flat, "curves": {n: [point, wild] for n in flat["curves"]}}
    assert "polyline" in plots.gain_chart(far, "far", plots.NARROW)
