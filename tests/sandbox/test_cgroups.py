"""Control groups as files: both versions on a folder that looks like the kernel's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sandbox import reaper
from sandbox.backends import cgroups
from sandbox.backends.cgroups import CONTROLLERS, Group, Hierarchy
from sandbox.errors import InfrastructureError


@pytest.fixture
def first(tmp_path: Path) -> Path:
    for name in CONTROLLERS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").touch()
    return tmp_path


@pytest.fixture
def second(tmp_path: Path) -> Path:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids")
    (tmp_path / "escapement").mkdir()
    (tmp_path / "escapement/cgroup.subtree_control").write_text("cpu memory pids")
    return tmp_path


def test_limits_of_version_1(first: Path) -> None:
    group = Hierarchy.find(first).create(memory_bytes=1000, processes=7)
    memory = first / "memory/escapement" / group.name
    assert (memory / "memory.limit_in_bytes").read_text() == "1000"
    assert (first / "pids/escapement" / group.name / "pids.max").read_text() == "7"
    cpu = first / "cpu/escapement" / group.name
    assert (cpu / "cpu.cfs_quota_us").read_text() == (cpu / "cpu.cfs_period_us").read_text()
    (memory / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 0\n")
    assert not group.oom_killed()
    (memory / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert group.oom_killed()


def test_limits_of_version_2(second: Path) -> None:
    group = Hierarchy.find(second).create(memory_bytes=1000, processes=7)
    [folder] = group.folders
    seen = {name: (folder / name).read_text() for name in ("memory.max", "pids.max", "cpu.max")}
    assert seen == {"memory.max": "1000", "pids.max": "7", "cpu.max": "100000 100000"}
    (folder / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    assert group.oom_killed()
    (folder / "memory.events").unlink()
    with pytest.raises(InfrastructureError, match="are gone"):
        group.oom_killed()


def test_a_missing_controller_is_refused_with_the_fix(first: Path) -> None:
    (first / "pids/cgroup.procs").unlink()
    with pytest.raises(InfrastructureError, match=r"no control group for pids.*Run as root"):
        Hierarchy.find(first)


def test_a_controller_that_is_not_handed_on_is_refused(second: Path) -> None:
    (second / "escapement/cgroup.subtree_control").write_text("cpu pids")
    with pytest.raises(InfrastructureError, match="may not hand on memory"):
        Hierarchy.find(second)


def test_a_name_that_leaves_the_mount_is_refused(
    first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cgroups.VARIABLE, "../outside")
    with pytest.raises(InfrastructureError, match=r"without `\.\.`"):
        Hierarchy.find(first)


def test_a_process_listed_as_0_kills_nobody_else(
    first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, _: killed.append(pid))
    monkeypatch.setattr(cgroups, "EMPTY_SECONDS", 0)
    group = Group(hierarchy=Hierarchy.find(first), name="worker.x")
    for folder in group.folders:
        folder.mkdir()
        (folder / "cgroup.procs").write_text("0\n1\n99999999\n")
    with pytest.raises(InfrastructureError, match="does not become empty"):
        group.remove()  # ordinary folders with a file in them stay, as busy groups do
    assert set(killed) == {99999999}


def test_only_groups_of_dead_owners_are_reaped(first: Path) -> None:
    found = Hierarchy.find(first)
    gone = subprocess.Popen(["true"])
    gone.wait()
    _, _, pid, started = reaper.me().split("|")
    namespace = cgroups._namespace()
    names = {
        "mine": f"worker.{namespace}.{pid}.{started}.0000000000000000",
        "dead": f"worker.{namespace}.{gone.pid}.1.0000000000000001",
        "elsewhere": f"worker.1.{gone.pid}.1.0000000000000002",
        "foreign": "docker",
    }
    for name in names.values():
        for parent in found.parents.values():
            (parent / name).mkdir()
    assert found.reap() == [names["dead"]]  # raises where a group does not become empty in time
    left = {path.name for path in found.parents["memory"].iterdir()}
    assert left == set(names.values()) - {names["dead"]}
