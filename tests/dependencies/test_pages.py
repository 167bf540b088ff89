"""The pages of packages, as people meet them."""

from __future__ import annotations

from typing import Any

import pytest
from dependencies import work
from django.test import Client
from django.urls import reverse

from sandbox import lock as locks

pytestmark = pytest.mark.django_db
PASSWORD = "a long enough one"


@pytest.fixture
def as_(packages: Any, settings: Any) -> Any:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

    def client_of(name: str) -> Client:
        person = packages.world[name]
        person.set_password(PASSWORD)
        person.save()
        client = Client(headers={"host": "localhost"})
        client.force_login(person)
        return client

    return client_of


def text(response: Any, status: int = 200) -> str:
    assert response.status_code == status, response.content[:500]
    return str(response.content, "utf-8")


def test_nobody_who_is_not_logged_in_sees_anything(packages: Any) -> None:
    request = packages.recorded()
    client = Client(headers={"host": "localhost"})
    for name, key in (("dependencies", []), ("dependency", [request.pk]), ("dependency-lock", [])):
        assert client.get(reverse(name, args=key)).status_code == 302


def test_asking_by_the_form(as_: Any, packages: Any) -> None:
    client = as_("linus")
    page = text(client.get(reverse("dependency-new"), {"package": "scikit-image", "proposal": "7"}))
    assert 'value="scikit-image"' in page
    bad = {"package": "tiny", "version": "new", "modules": "<b>", "reason": "because"}
    page = text(client.post(reverse("dependency-new"), bad), 422)
    assert "Refused" in page
    assert "&lt;b&gt;" in page
    good = bad | {"version": "1.0", "modules": "tiny"}
    assert client.post(reverse("dependency-new"), good).status_code == 302
    assert "Package tiny 1.0" in text(client.get(reverse("inbox")))


def test_reviewing_by_the_page(as_: Any, packages: Any) -> None:
    packages.index.add(
        "tiny", "2.0", {"tiny/__init__.py": "A = 1\n", "tiny/_fast.so": "x"}, licence=""
    )
    request = packages.recorded("tiny==2.0", modules="tiny: A")
    ada, url = as_("ada"), reverse("dependency", args=[request.pk])
    assert "Your review." in text(ada.get(reverse("inbox")))
    page = text(ada.get(url))
    for shown in (
        "NOT SCANNED",
        "not stated",
        "nobody can read it",
        "+tiny==2.0",
        "+import tiny: A",
        request.record["wheels"][0]["sha256"],
        "An approval binds to",
    ):
        assert shown in page, shown
    assert "You can&#x27;t approve this" in text(as_("linus").get(url)) or "can't approve" in text(
        as_("linus").get(url)
    )
    digest = page.partition('name="binding_digest" value="')[2][:64]
    approve = reverse("dependency-approve", args=[request.pk])
    form = {"reason": "I read it", "binding_digest": digest, "password": "wrong"}
    assert "the password is wrong" in text(ada.post(approve, form), 409)
    stale = form | {"password": PASSWORD, "binding_digest": "0" * 64}
    assert "it changed since" in text(ada.post(approve, stale), 409)
    form |= {"password": PASSWORD}
    assert ada.post(approve, form).status_code == 302
    assert "1 of 2 approvals" in text(ada.get(url))
    assert as_("grace").post(approve, form).status_code == 302
    request.refresh_from_db()
    assert request.state == "approved"
    denied = [e["data"]["code"] for e in packages.world.entries("dependency.denied")]
    assert denied == ["wrong_password", "stale"]


def test_rejecting_building_again_and_rolling_back_by_the_pages(as_: Any, packages: Any) -> None:
    ada = as_("ada")
    rejected = packages.recorded()
    page = reverse("dependency-reject", args=[rejected.pk])
    assert "say why" in text(ada.post(page, {"reason": " "}), 409)
    assert ada.post(page, {"reason": "numpy can"}).status_code == 302
    packages.built(packages.approved())
    listed = text(ada.get(reverse("dependencies")))
    assert "Roll back to lock 1" in listed
    assert "Roll back" not in text(as_("eve").get(reverse("dependencies")))
    back = reverse("lock-rollback", args=[1])
    assert "only reviewers" in text(as_("eve").post(back, {"reason": "x"}), 409)
    assert ada.post(back, {"reason": "slow"}).status_code == 302
    work.settle()
    assert locks.current().digest == locks.seed().digest
    given = ada.get(reverse("dependency-lock"))
    assert locks.parse(given.content).digest == locks.seed().digest


def test_a_draft_that_lacks_a_package_links_to_the_form(as_: Any, packages: Any) -> None:
    world = packages.world
    proposal = world.submit()
    screening = world.screen(proposal)
    for check in screening.report["checks"]:
        if check["name"] == "dependencies":
            check["detail"] = {"missing": ["scikit-image"]}
    screening.save()
    page = text(as_("ada").get(reverse("proposal", args=[proposal.pk])))
    link = f"/packages/new/?package=scikit-image&amp;proposal={proposal.pk}"
    assert link in page
    screening.report = world.report(proposal).to_data()
    screening.save()
