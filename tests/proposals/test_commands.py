"""Commands as processes on a site of their own: init, people, runner, policy, worker; races."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def environment(var: Path) -> dict[str, str]:
    path = f"{ROOT}{os.pathsep}{ROOT / 'platform'}"
    made = {**os.environ, "ESCAPEMENT_VAR": str(var), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    made["DJANGO_SETTINGS_MODULE"] = "config.settings"
    return made


def manage(var: Path, *arguments: str, code: int = 0) -> str:
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(var), capture_output=True, text=True, timeout=120,
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


def test_a_site_is_set_up_by_commands_that_can_be_repeated(site: Path) -> None:
    again = manage(site, "init")
    assert again.count("there") >= 2
    assert (site / "keys" / "platform.key").stat().st_mode & 0o777 == 0o600
    people = dict(line.split() for line in manage(site, "create_people").splitlines())
    assert set(people) == {"ada", "grace", "katherine", "linus"}
    assert len(set(people.values())) == 4
    assert manage(site, "create_people").strip() == ""
    out = site / "runner.json"
    arguments = ("gpu-1", "--target", "demo", "--operator", "linus", "--out", str(out))
    manage(site, "register_runner", *arguments)
    credentials = json.loads(out.read_text())
    assert set(credentials) == {"url", "token", "public_key", "runner", "target"}
    assert out.stat().st_mode & 0o777 == 0o600
    assert "can't make" in manage(site, "register_runner", *arguments, code=1)
    other = ("x y", "--target", "demo", "--operator", "linus", "--out", str(site / "o.json"))
    manage(site, "register_runner", *other, code=1)
    nobody = ("b", "--target", "demo", "--operator", "nobody", "--out", str(site / "o.json"))
    assert "no user" in manage(site, "register_runner", *nobody, code=1)
    assert not (site / "o.json").exists()
    policy = ROOT / "platform" / "proposals" / "policy.yaml"
    guarded = site / "guarded.yaml"
    guarded.write_text(policy.read_text().replace("mode: manual", "mode: guarded"))
    assert "mode guarded" in manage(site, "load_policy", str(guarded), "--by", "linus")
    assert "not_entitled" in manage(site, "load_policy", str(guarded), "--by", "ada", code=1)
    guarded.write_text("mode: guarded")
    assert "bad_policy" in manage(site, "load_policy", str(guarded), "--by", "linus", code=1)
    assert "0 problems" in manage(site, "verify_audit")
    work = manage(site, "work", "--once")
    assert "Traceback" not in work
    assert "0 problems" in manage(site, "verify_audit")


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
        out, _ = worker.communicate(timeout=30)
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
