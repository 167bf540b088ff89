"""`python -m sandbox`: exit codes, words for people, JSON for programs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.__main__ import main
from sandbox.backends.base import Backend

SPECIMENS = Path(__file__).parent / "specimens"
ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> int:
    return main(["--quiet", *arguments])


@pytest.mark.engine
def test_passed(engine: Backend, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("screen", str(SPECIMENS / "drafts/honest_tabu")) == 0
    out = capsys.readouterr().out
    assert out.startswith("PASSED tabu")
    assert re.search(
        r"\d+ of \d+ steps would have gone otherwise; predicted gain [+-]\d+ sigma", out
    )
    assert "advisories: not scanned" in out


def test_failed_says_what_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("screen", str(SPECIMENS / "hostile/tcp.py")) == 1
    out = capsys.readouterr().out
    assert out.startswith("FAILED tcp")
    assert "import-not-allowed  mechanisms/tcp.py:3" in out
    assert "a mechanism may not reach the network" in out


@pytest.mark.engine
def test_without_static_checks(engine: Backend, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("screen", str(SPECIMENS / "hostile/tcp.py"), "--without-static-checks") == 1
    assert "RAISED" in capsys.readouterr().out
    assert run("screen", str(SPECIMENS / "honest/tabu.py"), "--without-static-checks") == 2
    assert "neither passed nor failed" in capsys.readouterr().out


@pytest.mark.engine
def test_json(engine: Backend, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("screen", str(SPECIMENS / "inert/never_used.py"), "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert report["outcome"] == "failed"
    assert len(report["evidence_digest"]) == 64
    (finding,) = [f for c in report["checks"] for f in c["findings"] if f["severity"] == "error"]
    assert finding["rule"] == "inert"
    assert "TabuSearchManager" in finding["message"]


def test_refused_at_the_door(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mechanisms").mkdir()
    (tmp_path / "mechanisms/a.py").write_text("x = 1\n")
    assert run("screen", str(tmp_path)) == 1
    assert "no_test" in capsys.readouterr().out
    (tmp_path / "big.py").write_bytes(b"#" * 100_000)
    assert run("screen", str(tmp_path / "big.py"), "--json") == 1
    assert json.loads(capsys.readouterr().out)["checks"][0]["findings"][0]["rule"] == "too_large"


def test_no_engine(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    assert run("screen", str(SPECIMENS / "honest/tabu.py")) == 2
    assert "COULD NOT BE JUDGED" in capsys.readouterr().out
    assert run("screen", str(SPECIMENS / "hostile/tcp.py")) == 1  # the static gate needs none
    assert run("reap") == 2
    assert run("doctor") == 1


def test_unreadable_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("screen", str(tmp_path / "missing.py")) == 2
    assert "can't be read" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize("arguments", [[], ["screen"], ["nonsense"], ["screen", "x", "--what"]])
def test_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m sandbox" in capsys.readouterr().err


def test_hostile_text_can_not_pass_for_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.py"
    path.write_text("import a\u202e\x1b\n[bold]x = '[green]PASSED[/]'\n")
    assert run("screen", str(path)) == 1
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out


@pytest.mark.engine
def test_as_a_program(engine: Backend) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sandbox", "screen", str(SPECIMENS / "honest/annealing.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert (done.returncode, done.stdout.split()[0]) == (0, "PASSED"), done.stderr
    assert "checking: replay" in done.stderr
