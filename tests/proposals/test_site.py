"""A site of one's own: its server, its people, its secret, and what asks whether it is alive."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import pytest
from config import environment
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import DatabaseError
from django.test import Client


def said(*arguments: str) -> str:
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the server was started with; it would take the port for as long as the test runs."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr("uvicorn.run", lambda _, **more: calls.append(more))
    return calls


def test_a_whole_site_is_served(
    world: Any, served: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.1.2.3")
    assert "proxies: 10.1.2.3" in said("serve", "--host", "0.0.0.0", "--port", "8123")
    (how,) = served
    assert (how["host"], how["port"], how["forwarded_allow_ips"]) == ("0.0.0.0", 8123, "10.1.2.3")


@pytest.mark.django_db
def test_half_a_site_is_not_served(tmp_path: Path, settings: Any, served: list[Any]) -> None:
    settings.KEYS = tmp_path / "keys"
    settings.MECHANISMS_REPOSITORY = tmp_path / "no.git"
    err = io.StringIO()
    with pytest.raises(CommandError, match="not serving"):
        call_command("serve", stderr=err)
    for part in ("signing key", "repository", "policy"):
        assert f"{part}: " in err.getvalue()
    assert err.getvalue().count("fix: ") == 3
    assert not served


def test_settings_that_are_not_for_a_public_site_are_not_served(
    world: Any, settings: Any, served: list[Any]
) -> None:
    settings.HTTPS = True  # and nothing of what follows from it
    with pytest.raises(CommandError, match="SECURE_SSL_REDIRECT"):
        call_command("serve")
    assert not served


@pytest.mark.django_db
def test_a_machine_may_ask_whether_it_is_alive(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SECURE_SSL_REDIRECT = True
    answer = Client().get("/healthz", headers={"host": "10.0.0.7"})
    assert (answer.status_code, answer.content) == (200, b"ok\n")

    def away() -> None:
        raise DatabaseError("secret words of the database")

    monkeypatch.setattr("config.middleware.connection.cursor", away)
    answer = Client().get("/healthz")
    assert (answer.status_code, answer.content) == (503, b"no database\n")


def test_people_come_and_go_on_the_log(world: Any) -> None:
    name, password = said("people", "add", "zoe", "--role", "review", "--role", "audit").split()
    zoe = User.objects.get(username=name)
    assert zoe.check_password(password)
    assert set(zoe.groups.values_list("name", flat=True)) == {"reviewer", "auditor"}
    client = Client()
    client.force_login(zoe)
    assert client.get("/runs/").status_code == 200

    for wrong in (["add", "Zoe"], ["add", "z oe"], ["add", ""], ["close", "nobody"]):
        more = ["--role", "review"] if wrong[0] == "add" else []
        with pytest.raises(CommandError):
            said("people", *wrong, *more)
    with pytest.raises(CommandError, match="invalid choice"):
        said("people", "add", "max", "--role", "boss")

    said("people", "close", "zoe")
    assert client.get("/runs/").status_code == 302  # to the log-in page
    assert "(closed)" in said("people").split("zoe")[1].splitlines()[0]
    with pytest.raises(CommandError, match="no open account"):
        said("people", "close", "zoe")
    (made,), (changed,) = world.entries("user.created"), world.entries("user.changed")
    assert made["data"]["groups"] == ["auditor", "reviewer"]
    assert (made["data"]["active"], changed["data"]["active"]) == (True, False)


def test_a_secret_is_made_once_by_many_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ESCAPEMENT_SECRET_KEY", raising=False)
    path, found = tmp_path / "keys" / "django", []
    threads = [
        threading.Thread(target=lambda: found.append(environment.secret_key(path)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert set(found) == {path.read_text()}
    assert len(found[0]) >= environment.SECRET_CHARS
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["django"]


@pytest.mark.parametrize("value", ["", "short", "x" * 49])
def test_a_secret_from_outside_is_long_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("ESCAPEMENT_SECRET_KEY", value)
    with pytest.raises(ImproperlyConfigured, match="50 random"):
        environment.secret_key(tmp_path / "django")
    monkeypatch.setenv("ESCAPEMENT_SECRET_KEY", "k" * 50)
    assert environment.secret_key(tmp_path / "django") == "k" * 50
