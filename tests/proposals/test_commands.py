"""Commands as processes on a site of their own: init, people, runner, policy, worker; races."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

ROOT = Path(__file__).resolve().parents[2]


def environment(var: Path) -> dict[str, str]:
    path = f"{ROOT}{os.pathsep}{ROOT / 'platform'}"
    made = {**os.environ, "ESCAPEMENT_VAR": str(var), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    made["DJANGO_SETTINGS_MODULE"] = "config.settings"
    return made


def manage(var: Path, *arguments: str, code: int = 0) -> str:
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(var), capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    var = tmp_path_factory.mktemp("var")
    manage(var, "migrate", "-v0")
    manage(var, "init")
    return var


def test_a_site_is_set_up_by_commands(site: Path) -> None:
    assert (site / "keys" / "platform.key").stat().st_mode & 0o777 == 0o600
    people = dict(line.split() for line in manage(site, "create_people").splitlines())
    assert set(people) == {"ada", "grace", "katherine", "linus"}
    assert len(set(people.values())) == 4
    out = site / "runner.json"
    arguments = ("gpu-1", "--target", "demo", "--operator", "linus", "--out", str(out))
    manage(site, "register_runner", *arguments)
    credentials = json.loads(out.read_text())
    assert set(credentials) == {"url", "token", "public_key", "runner", "target"}
    assert out.stat().st_mode & 0o777 == 0o600
    assert "Traceback" not in manage(site, "work", "--once")
    assert "0 problems" in manage(site, "verify_audit")


def command(*arguments: str) -> str:
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def test_commands_can_be_repeated_and_refuse_what_is_wrong(world: Any, tmp_path: Path) -> None:
    assert command("init").count("there") == 2
    assert set(command("create_people").split()[::2]) == set()  # all of them are there already
    out = tmp_path / "runner.json"
    arguments = ("register_runner", "gpu-2", "--operator", "linus", "--out", str(out))
    command(*arguments, "--target", "demo")
    with pytest.raises(CommandError, match="can't make"):
        command(*arguments, "--target", "demo")
    for wrong in (("x y", "linus", "demo"), ("b", "nobody", "demo"), ("b", "linus", "../x")):
        name, operator, target = wrong
        options = ("--operator", operator, "--target", target, "--out", str(tmp_path / "o.json"))
        with pytest.raises(CommandError):
            command("register_runner", name, *options)
        assert not (tmp_path / "o.json").exists()
    options = ("--operator", "linus", "--target", "new", "--out", str(tmp_path / "o.json"))
    with pytest.raises(CommandError, match="no zebra"):
        command("register_runner", "b", *options, "--mechanism", "zebra")
    assert not (tmp_path / "o.json").exists()
    guarded = tmp_path / "guarded.yaml"
    guarded.write_text(world.policy_text.replace("mode: manual", "mode: guarded"))
    assert "mode guarded" in command("load_policy", str(guarded), "--by", "linus")
    with pytest.raises(CommandError, match="not_entitled"):
        command("load_policy", str(guarded), "--by", "ada")
    guarded.write_text("mode: guarded")
    with pytest.raises(CommandError, match="bad_policy"):
        command("load_policy", str(guarded), "--by", "linus")
    with pytest.raises(CommandError, match="can't read"):
        command("load_policy", str(tmp_path / "none.yaml"), "--by", "linus")


def test_a_token_is_closed_by_who_may_stop(world: Any) -> None:
    door = world.door()
    assert door.get("/api/v1/runner/desired").status_code == 200
    name, why = world.runner.name, ("--reason", "the host was lost")
    for wrong in (
        (name, "--by", "katherine", *why),
        (name, "--by", "nobody", *why),
        ("gpu-7", "--by", "linus", *why),
        (name, "--by", "linus", "--reason", " "),
    ):
        with pytest.raises(CommandError):
            command("revoke_runner", *wrong)
    assert door.get("/api/v1/runner/desired").status_code == 200
    assert "is closed" in command("revoke_runner", name, "--by", "linus", *why)
    assert door.get("/api/v1/runner/desired").status_code == 401
    (entry,) = world.entries("runner.revoked")
    assert (entry["actor"]["name"], entry["reason"]) == ("linus", "the host was lost")
    with pytest.raises(CommandError, match="was revoked"):
        command("revoke_runner", name, "--by", "linus", *why)


def test_the_worker_ends_cleanly_when_it_is_told_to(site: Path) -> None:
    worker = subprocess.Popen(
        [sys.executable, "manage.py", "work"],
        cwd=ROOT,
        env=environment(site),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert worker.stdout is not None
        assert "working" in worker.stdout.readline()
        worker.send_signal(signal.SIGTERM)
        out, _ = worker.communicate(timeout=240)
    finally:
        worker.kill()
    assert worker.returncode == 0, out
    assert "Traceback" not in out


RACES: list[tuple[str, dict[str, Any]]] = [
    ("claim", {"done": 1, "none": 7}),
    ("approve", {"done": 1, "already_decided": 7}),
    ("activate", {"done": 1, "already_used": 7}),
    ("roll_back", {"done": 1, "wrong_state": 7}),
]


@pytest.mark.parametrize(("verb", "expected"), RACES)
def test_of_many_at_once_one_wins(tmp_path: Path, verb: str, expected: dict[str, int]) -> None:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("racer.py")), verb],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert {code: told["results"].count(code) for code in told["results"]} == expected
    assert told["log"] == []
    assert told["activations"] == {"claim": 1, "approve": 1, "activate": 2, "roll_back": 3}[verb]
