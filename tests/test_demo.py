"""The whole story on real parts: `manage.py demo --headless`, as a person would call it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STORY_SECONDS = 1500
START_SECONDS = 300
STOP_SECONDS = 120
SHORT_SECONDS = 120


def demo(*arguments: str, env: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "manage.py", "demo", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.timeout(STORY_SECONDS + 60)
def test_the_whole_story_without_a_person(tmp_path: Path) -> None:
    process = demo("--headless", "--var", str(tmp_path / "var"), env=dict(os.environ))
    out, told = process.communicate(timeout=STORY_SECONDS)
    assert process.returncode == 0, f"{told[-6000:]}\n{out[-3000:]}"
    summary = json.loads(out)
    assert summary["ok"]
    cast = summary["proposals"]
    for role in ("approved", "rolled_back", "autonomous"):
        fact = cast[role]
        assert fact["digest_approved"] == fact["digest_attested"]
        assert len(fact["digest_attested"]) == 64
        assert sum(fact["hook_calls"].values()) > 0
        assert fact["audit"]
    for role in ("rejected", "failed"):
        assert cast[role]["digest_attested"] is None
    assert {r["who"] for r in summary["refusals"]} == {"linus", "ada"}
    assert summary["audit"]["bundle_verified"]


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def free_port() -> int:
    """One that stays free until it is used: below those that the kernel gives to whoever asks for
    any, as the other tests do meanwhile."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def children_of(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.timeout(2 * (START_SECONDS + STOP_SECONDS))
def test_the_demo_serves_stops_cleanly_and_resumes(tmp_path: Path) -> None:
    port = free_port()
    env = {**os.environ, "ESCAPEMENT_VAR": str(tmp_path), "ESCAPEMENT_PORT": str(port)}
    for attempt in ("first", "second"):
        process = demo(env=env)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not answers(f"http://127.0.0.1:{port}/login/"):
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline, f"the {attempt} start never served"
                time.sleep(0.3)
            while len(children := children_of(process.pid)) < 3:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline, f"the {attempt} start has {children}"
                time.sleep(0.3)
        finally:
            process.send_signal(signal.SIGTERM)
            out, problems = process.communicate(timeout=STOP_SECONDS)
        assert process.returncode == 0, out + problems
        assert not [pid for pid in children if Path(f"/proc/{pid}").exists()], "an orphan is left"
        assert ("shown this once" in out) == (attempt == "first")
    assert not answers(f"http://127.0.0.1:{port}/login/")


@pytest.mark.engine
def test_a_port_in_use_is_said_so(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        env = {**os.environ, "ESCAPEMENT_VAR": str(tmp_path), "ESCAPEMENT_PORT": str(port)}
        process = demo(env=env)
        out, _ = process.communicate(timeout=SHORT_SECONDS)
    assert process.returncode == 1
    assert f"port {port} can't be used" in out


def test_a_headless_story_never_touches_a_used_folder(tmp_path: Path) -> None:
    (tmp_path / "db.sqlite3").write_text("somebody's")
    process = demo("--headless", "--var", str(tmp_path), env=dict(os.environ))
    _, problems = process.communicate(timeout=SHORT_SECONDS)
    assert process.returncode != 0
    assert "is not empty" in problems
    assert (tmp_path / "db.sqlite3").read_text() == "somebody's"


def facts(role: str, **changed: object) -> dict[str, object]:
    live = role in {"approved", "rolled_back", "autonomous"}
    digest = "ab" * 32 if live else None
    by = ["policy:123"] if role == "autonomous" else ["ada"]
    fact: dict[str, object] = {
        "proposal": hash(role),
        "state": {"approved": "superseded", "autonomous": "live"}.get(role, role),
        "digest_approved": digest,
        "digest_attested": digest,
        "approved_by": by if live else [],
        "failed_checks": ["contract"] if role == "failed" else [],
        "trials": 3 if live else 0,
        "decisions_changed": 2 if live else 0,
        "hook_calls": {"propose_calls": 3 if live else 0},
        "audit": [1, 2],
    }
    return {**fact, **changed}


def summary(**changed: dict[str, object]) -> dict[str, object]:
    roles = ("approved", "rejected", "failed", "rolled_back", "autonomous")
    return {
        "proposals": {role: facts(role, **changed.get(role, {})) for role in roles},
        "swaps": [{"kind": k, "ok": True} for k in ("approval", "policy", "rollback")],
        "refusals": [{"who": "linus"}, {"who": "ada"}],
        "crashes": {"web": 0},
    }


def test_a_summary_in_which_all_held_has_no_problem() -> None:
    from proposals.demo.headless import problems

    assert problems(summary()) == []


def test_mechanisms_that_change_nothing_are_no_proof() -> None:
    from proposals.demo.headless import problems

    inert = {"decisions_changed": 0}
    found = problems(summary(approved=inert, rolled_back=inert, autonomous=inert))
    assert any("null mechanism" in problem for problem in found)
    assert problems(summary(approved=inert, rolled_back=inert)) == []


@pytest.mark.parametrize(
    ("role", "changed"),
    [
        ("approved", {"digest_attested": None}),  # the attestation was removed
        ("approved", {"digest_attested": "cd" * 32}),  # the load fell back to something else
        ("rolled_back", {"digest_approved": None}),
        ("autonomous", {"hook_calls": {"propose_calls": 0}}),
        ("autonomous", {"approved_by": ["ada"]}),
        ("approved", {"approved_by": ["policy:123"]}),
        ("approved", {"trials": 0}),
        ("approved", {"audit": []}),
        ("rejected", {"digest_attested": "ab" * 32}),
        ("rejected", {"state": "passed"}),
        ("failed", {"failed_checks": ["imports"]}),  # it never came as far as the sandbox
        ("rolled_back", {"state": "live"}),
    ],
)
def test_a_summary_in_which_something_did_not_hold(role: str, changed: dict[str, object]) -> None:
    from proposals.demo.headless import problems

    assert problems(summary(**{role: changed}))
