"""The scripts that make a clone ready: what they say where they may not act."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def engine_script() -> ModuleType:
    return script("engine")


@pytest.fixture
def stranger(tmp_path: Path) -> dict[str, str]:
    """The environment of somebody who is not root, on a machine without the packages."""
    shims = tmp_path / "bin"
    shims.mkdir()
    (shims / "id").write_text("#!/bin/sh\necho 1000\n")
    (shims / "dpkg").write_text("#!/bin/sh\nexit 1\n")
    (shims / "apt-get").write_text("#!/bin/sh\necho apt-get was called; exit 99\n")
    for shim in shims.iterdir():
        shim.chmod(0o755)
    return {**os.environ, "PATH": f"{shims}:{os.environ['PATH']}"}


def test_who_is_not_root_gets_the_one_command(stranger: dict[str, str]) -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "debian_packages", "a-package-that-is-missing"],
        env=stranger,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1
    assert "sudo apt-get install -y a-package-that-is-missing" in done.stderr
    assert "apt-get was called" not in done.stdout + done.stderr


def test_no_python_3_11_is_said_so(tmp_path: Path) -> None:
    copy = tmp_path / "clone" / "scripts"
    copy.mkdir(parents=True)
    (copy / "setup").write_text((ROOT / "scripts" / "setup").read_text())
    shims = tmp_path / "bin"
    shims.mkdir()
    for tool in ("bash", "dirname", "grep", "sed", "cat", "sha256sum", "uname"):
        (shims / tool).symlink_to(f"/usr/bin/{tool}")
    old = shims / "python3"
    old.write_text("#!/bin/bash\nexit 1\n")
    old.chmod(0o755)
    text = (copy / "setup").read_text().replace("/usr/bin/python3.11", "/nowhere/python3.11")
    (copy / "setup").write_text(text)
    done = subprocess.run(
        ["/usr/bin/bash", copy / "setup", "python"],
        env={"PATH": str(shims)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1
    assert "Python 3.11 was not found" in done.stderr
    assert not (tmp_path / "clone" / ".venv").exists()


def test_a_setup_that_was_done_is_quick_and_installs_nothing() -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "setup", "python"],
        env={**os.environ, "PIP_NO_INDEX": "1"},  # where it was not done, it fails and does nothing
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert "installing" not in done.stderr


def test_a_pid_file_of_a_dead_or_foreign_process_is_removed(
    engine_script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign, nonsense = tmp_path / "foreign.pid", tmp_path / "nonsense.pid"
    foreign.write_text(str(os.getpid()))  # alive, and no dockerd
    nonsense.write_text("not a number")
    names = {foreign: "dockerd", nonsense: "dockerd", tmp_path / "absent.pid": "dockerd"}
    monkeypatch.setattr(engine_script, "PID_FILES", names)
    engine_script.clear_stale_pid_files()
    assert not list(tmp_path.iterdir())


def test_the_pid_file_of_a_living_engine_stays(
    engine_script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    living = tmp_path / "living.pid"
    living.write_text(str(os.getpid()))
    own = engine_script.process_name(str(os.getpid()))
    assert own
    monkeypatch.setattr(engine_script, "PID_FILES", {living: own})
    engine_script.clear_stale_pid_files()
    assert living.exists()


def test_an_engine_elsewhere_that_does_not_answer_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "engine.py"],
        env={**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/nobody.sock"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1
    assert "nobody.sock" in done.stderr
    assert "unset DOCKER_HOST" in done.stderr


@pytest.fixture
def security() -> ModuleType:
    return script("own_security")


def lock_report(security: ModuleType, monkeypatch: pytest.MonkeyPatch, *, skip: int) -> None:
    pins = [p for p in (ROOT / "constraints.txt").read_text().splitlines() if "==" in p]
    packages = []
    for number, pin in enumerate(pins):
        name, version = pin.split("==")
        if number < skip:
            packages.append({"name": name, "skip_reason": "no answer"})
        else:
            packages.append({"name": name, "version": version, "vulns": []})
    monkeypatch.setattr(security, "run", lambda *_: ({"dependencies": packages}, ""))


def test_a_lock_that_was_looked_up_whole_is_clean(
    security: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock_report(security, monkeypatch, skip=0)
    assert security.scan_lock() == 0


@pytest.mark.parametrize("skip", [1, 10_000])
def test_a_package_that_nobody_looked_at_is_not_clean(
    security: ModuleType, monkeypatch: pytest.MonkeyPatch, skip: int
) -> None:
    monkeypatch.delenv("ESCAPEMENT_AUDIT", raising=False)
    lock_report(security, monkeypatch, skip=skip)
    assert security.scan_lock() == security.COULD_NOT_LOOK
    monkeypatch.setenv("ESCAPEMENT_AUDIT", "required")
    assert security.scan_lock() == 1


def test_a_vulnerable_pin_fails_even_where_others_were_not_looked_at(
    security: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    hit = {"id": "PYSEC-1", "fix_versions": ["2"]}
    packages = [{"name": "bad", "version": "1", "vulns": [hit]}]
    monkeypatch.setattr(security, "run", lambda *_: ({"dependencies": packages}, ""))
    assert security.scan_lock() == 1


def test_no_answer_at_all_could_not_look(
    security: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ESCAPEMENT_AUDIT", raising=False)
    monkeypatch.setattr(security, "run", lambda *_: (None, "ConnectionError"))
    assert security.scan_lock() == security.COULD_NOT_LOOK


def test_a_scanner_that_does_not_end_could_not_look(
    security: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ESCAPEMENT_AUDIT", raising=False)
    sleeper = tmp_path / "pip-audit"
    sleeper.write_text("#!/bin/sh\nexec sleep 600\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr(security, "BIN", tmp_path)
    monkeypatch.setattr(security, "SECONDS", 0.5)
    assert security.scan_lock() == security.COULD_NOT_LOOK


def test_the_python_that_a_person_names_reaches_the_script() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "--eval", 'probe: ; @echo "$$PYTHON"', "probe"],
        cwd=ROOT,
        env={**os.environ, "PYTHON": "/opt/python3.11"},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert done.stdout == "/opt/python3.11\n"
