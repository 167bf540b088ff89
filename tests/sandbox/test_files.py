"""A file is written whole or not at all."""

import os
import stat

import pytest

from sandbox.files import put


def test_it_takes_the_place_of_what_was_there(tmp_path):
    path = tmp_path / "kept.json"
    path.write_bytes(b"old, and longer")
    put(path, b"new", mode=0o644)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    put(path, b"private")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["kept.json"]


def test_what_fails_changes_nothing_and_leaves_nothing(tmp_path):
    path = tmp_path / "kept"
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        put(path, b"new")
    with pytest.raises(FileNotFoundError):
        put(tmp_path / "missing" / "kept", b"new")
    assert os.listdir(tmp_path) == ["kept"]
    assert path.is_dir()


def test_a_reader_never_sees_a_part(tmp_path, monkeypatch):
    path = tmp_path / "kept"
    put(path, b"old")
    seen = []
    real = os.replace

    def look(source, target):
        seen.append(path.read_bytes())
        real(source, target)

    monkeypatch.setattr(os, "replace", look)
    put(path, b"new" * 100_000)
    assert seen == [b"old"]
    assert path.read_bytes() == b"new" * 100_000
