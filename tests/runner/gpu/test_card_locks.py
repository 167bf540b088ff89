"""One trial a card: also across processes, and when the holder dies."""

from __future__ import annotations

import subprocess
import sys

import pytest

from runner.gpu.card_locks import CardError, cards_of
from runner.processes import locks, subprocesses
from runner.processes.locks import LockError, one_of

SAME = [{"uuid": "aa-1", "name": "NVIDIA H100 PCIe"}, {"uuid": "bb/2", "name": "NVIDIA H100 PCIe"}]


@pytest.mark.parametrize(
    ("chosen", "devices", "keys"),
    [
        (None, ["0", "1"], ["aa-1", "bb-2"]),
        ("", ["0", "1"], ["aa-1", "bb-2"]),
        ("3, 5,nothing", ["3", "5"], ["aa-1", "bb-2"]),
        ("MIG-x,MIG-y", ["MIG-x", "MIG-y"], ["MIG-x", "MIG-y"]),
    ],
)
def test_cards_are_named_as_the_user_names_them(chosen, devices, keys):
    found = cards_of(SAME, chosen)
    assert [card.device for card in found] == devices
    assert [card.key for card in found] == keys
    assert all("/" not in card.lock.name for card in found)


def test_cards_of_several_kinds_are_refused():
    with pytest.raises(CardError, match=r"of several kinds \(NVIDIA H100 PCIe, NVIDIA L4\)"):
        cards_of([*SAME, {"uuid": "c", "name": "NVIDIA L4"}], None)
    with pytest.raises(CardError):
        cards_of([], None)


def test_each_gets_another_one_and_who_gets_none_waits(tmp_path):
    paths, told = [tmp_path / "a", tmp_path / "b"], []
    with one_of(paths, wait_seconds=0) as first, one_of(paths, wait_seconds=0) as second:
        assert {first, second} == {0, 1}
        with (
            pytest.raises(LockError, match="held by another process"),
            one_of(paths, wait_seconds=0, waiting=lambda: told.append("waits")),
        ):
            pass
    with one_of(paths, wait_seconds=0) as again:
        assert again == 0


def test_a_holder_that_is_killed_lets_go(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.01)
    code = (
        "import sys,time;from pathlib import Path;from runner.processes.locks import one_of\n"
        "with one_of([Path(sys.argv[1])], wait_seconds=0):\n"
        " print('has it', flush=True); time.sleep(99)"
    )
    path, told = tmp_path / "a", []
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "has it\n"
        with one_of([path], wait_seconds=600, waiting=holder.kill):
            told.append("free")
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert told == ["free"]


def test_who_waits_gives_up_when_the_runner_is_stopped(tmp_path, monkeypatch):
    with one_of([tmp_path / "a"], wait_seconds=0):
        monkeypatch.setattr(subprocesses.STOPPING, "is_set", lambda: True)
        with (
            pytest.raises(subprocesses.StopRequested),
            one_of([tmp_path / "a"], wait_seconds=600),
        ):
            pass


def test_a_lock_that_can_not_be_made(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "link", tmp_path / "nowhere" / "a"):
        with pytest.raises(LockError, match="can't be opened"), one_of([path], wait_seconds=0):
            pass
    assert not (tmp_path / "elsewhere").exists()
