"""Who owns a container: only the dead of this machine are ever called orphans."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import reaper
from sandbox.image import ROOT


def another() -> str:
    """The owner label of a process that has ended."""
    code = "from sandbox import reaper; print(reaper.me())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_living_own_what_is_theirs() -> None:
    assert not reaper.is_orphan(reaper.me(), running=True)
    assert not reaper.is_orphan(reaper.me(), running=False)


def test_what_the_dead_left_is_orphaned() -> None:
    assert reaper.is_orphan(another(), running=True)


def test_a_process_id_that_is_used_again_is_not_the_owner() -> None:
    host, boot, pid, started = reaper.me().split("|")
    assert reaper.is_orphan("|".join([host, boot, pid, str(int(started) + 1)]), running=True)


def test_of_another_machine_nothing_is_known() -> None:
    _, boot, _, _ = reaper.me().split("|")
    assert not reaper.is_orphan(f"elsewhere/pid:[1]|{boot}|999999999|1", running=False)


@pytest.mark.parametrize("running", [True, False])
def test_of_an_earlier_boot_only_what_stopped_is_taken(running: bool) -> None:
    host, _, pid, started = reaper.me().split("|")
    assert reaper.is_orphan("|".join([host, "before", pid, started]), running=running) != running


@given(st.text(max_size=60))
def test_a_label_unlike_ours_is_never_an_orphan(owner: str) -> None:
    assert not reaper.is_orphan(owner, running=True)
