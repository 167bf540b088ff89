"""What the Dockerfile says is true of this folder. Builds nothing: no registry is needed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINES = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")


def stage(name: str) -> list[str]:
    """The instructions of a target."""
    starts = [n for n, line in enumerate(LINES) if line.startswith("FROM ")]
    start = LINES.index(f"FROM ${{BASE}} AS {name}")
    end = next((n for n in starts if n > start), len(LINES))
    return [line for line in LINES[start + 1 : end] if line and not line.startswith("#")]


def only(name: str, word: str) -> str:
    """What the one instruction of that kind says."""
    (found,) = [line for line in stage(name) if line.startswith(f"{word} ")]
    return found.removeprefix(f"{word} ").strip()


@pytest.mark.parametrize("name", ["web", "runner"])
def test_a_target_copies_what_is_there_and_runs_as_a_user_of_its_own(name: str) -> None:
    left_out = (ROOT / ".dockerignore").read_text().split()
    for line in stage(name):
        if line.startswith("COPY "):
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source
                assert source.split("/")[0] not in left_out
    assert only(name, "USER") == "escapement"
    assert "ESCAPEMENT_VAR=" + only(name, "VOLUME") in only(name, "ENV").split()


@pytest.mark.parametrize("name", ["web", "runner"])
def test_a_target_installs_by_the_lock_what_pyproject_names(name: str) -> None:
    (command,) = [
        line for line in stage(name) if "scripts/requirements.py" in line and "RUN" in line
    ]
    assert "--constraint constraints.txt" in command
    assert "pip check" in command
    extras = re.findall(r"requirements\.py ([a-z ]+?) *[|;]", command)[0].split()
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "requirements.py", *extras],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    wanted = {re.split(r"[\[<>=]", line)[0] for line in done.stdout.split()}
    assert ("django" in wanted) == (name == "web")
    assert "torch" in wanted
    if name == "web":
        assert "grep -v '^torch'" in command
    else:  # one build of it, or none
        assert "ARG TORCH=cpu" in stage(name)
        assert 's/^torch==.*/&+$TORCH/p" constraints.txt' in command


def test_the_web_target_starts_and_is_asked_by_what_is_there() -> None:
    from config import middleware
    from django.core.management import get_commands

    command = json.loads(only("web", "CMD"))
    assert command[:2] == ["python", "manage.py"]
    assert command[2] in get_commands()
    assert f"127.0.0.1:8000{middleware.ALIVE}" in only("web", "HEALTHCHECK")
    assert json.loads(only("runner", "ENTRYPOINT")) == ["python", "-m", "runner"]


def test_the_page_names_commands_targets_and_variables_that_are_there() -> None:
    from django.core.management import get_commands

    for command in re.findall(r"(?:manage\.py|^ *manage) ([a-z_]{3,})", PAGE, re.MULTILINE):
        assert command in get_commands(), command
    for target in re.findall(r"--target (\w+) -t", PAGE):
        assert stage(target)
    folders = ("platform", "sandbox")
    code = "".join(p.read_text() for folder in folders for p in (ROOT / folder).rglob("*.py"))
    code += (ROOT / "tests" / "conftest.py").read_text()
    for variable in set(re.findall(r"\b(?:ESCAPEMENT|DATABASE|FORWARDED)_[A-Z_]+", PAGE)):
        assert f'"{variable}"' in code, variable


@pytest.mark.parametrize("command", ["build_py", "sdist"])
def test_no_package_is_made(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", command],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "In a checkout: make setup" in done.stderr
