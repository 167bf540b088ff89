"""`manage.py doctor`: what it says of a fresh installation, of a good one and of a broken one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.engine


def manage(var: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "ESCAPEMENT_VAR": str(var)}
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=280, check=False
    )


def parts(text: str, mark: str) -> set[str]:
    lines = [line.strip() for line in text.splitlines()]
    return {line[len(mark) :].strip().partition(":")[0] for line in lines if line.startswith(mark)}


def test_from_nothing_to_a_good_installation_to_a_broken_one(tmp_path: Path) -> None:
    var = tmp_path / "var"
    fresh = manage(var, "doctor")
    assert fresh.returncode == 1
    assert {"database", "signing key", "repository", "policy", "worker"} <= parts(
        fresh.stdout, "BAD"
    )
    assert {"Python", "disk", "sandbox"} <= parts(fresh.stdout, "ok")
    assert fresh.stdout.count("fix: ") == fresh.stdout.count("BAD")

    for command in ("migrate", "init", "create_people"):
        assert manage(var, command).returncode == 0
    good = manage(var, "doctor", "--without-sandbox")
    assert parts(good.stdout, "BAD") == {"worker", "runners"}  # they were never started
    assert "approved operators, signed" in good.stdout
    assert "advisories" in parts(good.stdout, "ok")  # none, and the first policy only shows it

    (var / "keys" / "platform.key").chmod(0o644)
    open_key = manage(var, "doctor", "--without-sandbox")
    assert "signing key" in parts(open_key.stdout, "BAD")
    assert "chmod 600" in open_key.stdout

    (var / "keys" / "platform.key").chmod(0o600)
    (var / "mechanisms.git" / "HEAD").unlink()
    no_repository = manage(var, "doctor", "--without-sandbox")
    assert "repository" in parts(no_repository.stdout, "BAD")
