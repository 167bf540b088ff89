"""The story for the pages: in the test's own database, or behind a real server."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from django.test import Client
    from pytest_django.fixtures import SettingsWrapper

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
START_SECONDS = 240
sys.path.insert(0, str(HERE))  # test folders are no packages: `factory.py` imports its neighbour


@pytest.fixture(scope="session")
def factory() -> ModuleType:
    """`factory.py` beside this file."""
    spec = importlib.util.spec_from_file_location("web_factory", HERE / "factory.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def var(tmp_path: Path, settings: SettingsWrapper, seed_repository: Path) -> Path:
    """Keys and repository of this test alone."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # quick
    settings.KEYS = tmp_path / "keys"
    settings.MECHANISMS_REPOSITORY = tmp_path / "mechanisms.git"
    shutil.copytree(seed_repository, settings.MECHANISMS_REPOSITORY)
    return tmp_path


@pytest.fixture
def story(db: None, var: Path, factory: ModuleType) -> dict[str, Any]:
    """The whole story; proposals by what they are an example of."""
    from django.core.cache import cache
    from proposals import live

    cache.clear()
    live._cache.clear()
    told: dict[str, Any] = factory.story()
    return told


@pytest.fixture
def as_(story: dict[str, Any]) -> Callable[[str], Client]:
    """A client that is logged in as somebody of the story."""
    from django.contrib.auth.models import User
    from django.test import Client

    def client_of(name: str) -> Client:
        client = Client(headers={"host": "localhost"})
        client.force_login(User.objects.get(username=name))
        return client

    return client_of


def environment_of(var: Path) -> dict[str, str]:
    """The environment of a process over that folder."""
    python_path = f"{ROOT}{os.pathsep}{ROOT / 'platform'}"
    return {**os.environ, "ESCAPEMENT_VAR": str(var), "PYTHONPATH": python_path}


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the story in it, made once; servers run over copies."""
    var = tmp_path_factory.mktemp("story") / "var"
    for command in (["manage.py", "migrate", "-v0"], [str(HERE / "factory.py")]):
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment_of(var), capture_output=True,
            text=True, timeout=START_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    return var


@pytest.fixture
def server_environment(filled: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of this test's server, over a copy of the story."""
    shutil.copytree(filled, tmp_path / "var")
    return environment_of(tmp_path / "var")


@pytest.fixture
def server(tmp_path: Path, server_environment: dict[str, str]) -> Iterator[str]:
    """A real server over the story: its address."""
    log = (tmp_path / "server.log").open("w+")
    arguments = ["config.asgi:application", "--port", "0", "--no-access-log", "--no-use-colors"]
    arguments += ["--timeout-graceful-shutdown", "1"]  # open pages hold a stream each
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", *arguments], cwd=ROOT, env=server_environment, stdout=log,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield _address(process, tmp_path / "server.log")
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where it listens, as it says once it does; the port is the kernel's choice."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            pytest.fail(f"the server ended: {log.read_text()[-3000:]}")
        if found := re.search(r"running on (http://127\.0\.0\.1:\d+) ", log.read_text()):
            return found[1]
        time.sleep(0.2)
    pytest.fail(f"the server did not answer: {log.read_text()[-3000:]}")
