"""A small world with people and git, and a folder of wheels that real pip takes packages from."""

from __future__ import annotations

import importlib.util
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sandbox import depreq, opened

HERE = Path(__file__).resolve().parent


def _module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_proposals = _module("world_of_proposals", HERE.parent / "proposals/conftest.py")
_maker = _module("wheel_maker", HERE.parent / "sandbox/wheel_maker.py")
place, world, refused = _proposals.place, _proposals.world, _proposals.refused


class Wheels:
    """Writes wheels into a folder, as a package's author would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, version: str, *files: Any, **more: Any) -> Path:
        path: Path = _maker.make_wheel(self.folder, name, version, *files, **more)
        return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheels:
    """A folder of wheels, and nothing else, is where pip looks."""
    folder = tmp_path / "index"
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return Wheels(folder)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A var folder of this test alone: its lock, its wheels, no advisories."""
    monkeypatch.setenv("ESCAPEMENT_VAR", str(tmp_path / "var"))
    monkeypatch.setenv("ESCAPEMENT_ADVISORIES", str(tmp_path / "advisories"))
    return tmp_path / "var"


class Packages:
    """Requests for packages in short."""

    def __init__(self, world: Any, index: Wheels) -> None:
        self.world, self.index = world, index

    def ask(self, pin: str = "tiny==1.0", by: str = "linus", **more: Any) -> Any:
        from dependencies import verbs

        values = {"modules": "tiny", "reason": "a limit is needed"} | more
        return verbs.ask(person=self.world[by], pin=pin, **values)

    def recorded(self, pin: str = "tiny==1.0", by: str = "linus", **more: Any) -> Any:
        """Asked for, and looked at as the worker does, the wheel taken from the folder at once
        (`test_work` goes through pip)."""
        if pin == "tiny==1.0":
            self.index.add("tiny", "1.0")
        request = self.ask(pin, by, **more)
        self.record(request)
        return request

    def record(self, request: Any) -> None:
        from dependencies import adopted, verbs

        made = depreq.request(
            request.pin,
            self.index.folder,
            now=datetime.now(UTC),
            lock=adopted.lock_in_force(),
            modules=opened.parse(request.modules),
        )
        verbs.record(request_id=request.pk, made=made)
        request.refresh_from_db()

    def approve(self, request: Any, by: str, **more: Any) -> Any:
        from dependencies import decisions

        request.refresh_from_db()
        values = {"reason": "I read it"} | more
        if "binding_digest" not in values:
            values["binding_digest"] = decisions.digest(decisions.binding_of(request))
        done = decisions.approve(request_id=request.pk, person=self.world[by], **values)
        request.refresh_from_db()
        return done

    def approved(self, pin: str = "tiny==1.0", **more: Any) -> Any:
        request = self.recorded(pin, **more)
        assert request.state == "in_review", (request.code, request.state_reason)
        self.approve(request, "ada")
        self.approve(request, "grace")
        assert request.state == "approved"
        return request

    def built(self, request: Any, **more: Any) -> Any:
        """Adopt without an engine: what a build would have found is made up here alone."""
        from dependencies import builds, work

        values = {
            "image_id": "sha256:" + "7c" * 32,
            "image_name": "escapement-sandbox:test",
            "sbom": "{}",
            "scan": request.record["scan"],
            "controls": 9,
        }
        assert builds.begin(request.pk) is not None
        lock = builds.adopt(request_id=request.pk, built=builds.Built(**(values | more)))
        work.settle()  # sent after commit, which a test's transaction never reaches
        request.refresh_from_db()
        return lock


@pytest.fixture
def packages(world: Any, index: Wheels, site: Path) -> Packages:
    return Packages(world, index)
