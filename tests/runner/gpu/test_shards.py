"""Shards into tokens: hostile files, a checked cache, several processes at once."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy
import pyarrow
import pytest
from pyarrow import parquet

from runner.gpu import manifest, shards
from runner.gpu.manifest import ShardError
from runner.gpu.shards import BEGIN, documents, prepare
from runner.processes import locks
from tests.runner.shardfolder import write_shard, write_shards

VOCABULARY = 512


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def tokens(folder):
    return prepare(folder, vocabulary=VOCABULARY)


def ids_of(path):
    return numpy.frombuffer(path.read_bytes(), dtype="<u2").tolist()


def table(path, texts, kind=None):
    parquet.write_table(pyarrow.table({"text": pyarrow.array(texts, kind)}), path)


def test_tokens_stand_for_the_bytes_of_the_text(folder, tokens):
    shard = sorted(folder.glob("*.parquet"))[-1]
    texts = [text for batch in documents(shard) for text in batch]
    ids = ids_of(tokens.validation)
    assert len(tokens.token_bytes) <= VOCABULARY
    assert ids.count(tokens.begin) == len(texts)
    assert sum(tokens.token_bytes[i] for i in ids) == sum(len(text.encode()) for text in texts)
    assert tokens.token_bytes[tokens.begin] == 0


def test_a_text_that_spells_the_begin_token_begins_nothing(tmp_path):
    texts = [f"one {BEGIN} two", f"{BEGIN}{BEGIN}", "\u4e2d\x00\ud7ff", "plain"]
    table(tmp_path / "0.parquet", texts[::-1])
    table(tmp_path / "1.parquet", texts)
    made = prepare(tmp_path, vocabulary=300)
    ids = ids_of(made.validation)
    assert ids.count(made.begin) == len(texts)
    assert sum(made.token_bytes[i] for i in ids) == sum(len(text.encode()) for text in texts)


def test_null_and_empty_rows_are_no_documents_and_a_huge_one_is_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "MAX_DOCUMENT_CHARACTERS", 10)
    table(tmp_path / "0.parquet", [None, "", "short", "x" * 25, None])
    assert [*documents(tmp_path / "0.parquet")] == [["short", "x" * 10, "x" * 10, "x" * 5]]


def test_preparing_again_makes_nothing_anew_and_repairs_what_is_spoiled(folder, tokens):
    said = []
    assert prepare(folder, vocabulary=VOCABULARY, say=said.append) == tokens
    assert said == []
    good = tokens.train[0].read_bytes()
    tokens.train[0].write_bytes(good[:-2])
    with pytest.raises(ShardError, match="not what was prepared"):
        manifest.verify(tokens.train[0])
    assert prepare(folder, vocabulary=VOCABULARY, say=said.append) == tokens
    assert len(said) == 1
    assert tokens.train[0].read_bytes() == good


def test_a_changed_shard_and_another_vocabulary(tmp_path):
    for number in range(2):
        write_shard(tmp_path / f"shard_{number}.parquet", number, documents=2)
    one = prepare(tmp_path, vocabulary=300)
    assert prepare(tmp_path, vocabulary=301).digest != one.digest
    assert prepare(tmp_path, vocabulary=300) == one
    write_shard(tmp_path / "shard_0.parquet", 9, documents=2)
    with pytest.raises(ShardError, match="changed since it was recorded"):
        prepare(tmp_path, vocabulary=300)


def test_too_few_shards_and_a_wrong_vocabulary(tmp_path):
    with pytest.raises(ShardError, match=r"holds 0 parquet shards.*runner\.gpu\.shards fetch"):
        prepare(tmp_path / "nowhere", vocabulary=512)
    table(tmp_path / "a.parquet", ["x"])
    with pytest.raises(ShardError, match="holds 1 parquet shards"):
        prepare(tmp_path, vocabulary=512)
    table(tmp_path / "b.parquet", ["y"])
    for vocabulary in (10, 2**16 + 1):
        with pytest.raises(ShardError, match="vocabulary"):
            prepare(tmp_path, vocabulary=vocabulary)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.write_bytes(b"PAR1 no parquet PAR1"), "can't be read"),
        (lambda p: p.write_bytes(b""), "can't be read"),
        (lambda p: p.write_bytes(p.with_name("good.parquet").read_bytes()[:-300]), "can't be read"),
        (lambda p: parquet.write_table(pyarrow.table({"other": ["x"]}), p), "no column 'text'"),
        (lambda p: table(p, [1, 2]), "holds int64, no text"),
        (lambda p: table(p, [b"x"], pyarrow.binary()), "holds binary, no text"),
        (lambda p: table(p, [["x"]]), "no text"),
        (lambda p: table(p, [None, ""], pyarrow.string()), "holds no text"),
        (lambda p: table(p, [], pyarrow.string()), "holds no text"),
    ],
)
def test_a_shard_that_can_not_be_used(tmp_path, make, message):
    write_shard(tmp_path / "good.parquet", 1, documents=4)
    make(tmp_path / "shard.parquet")
    with pytest.raises(ShardError, match=message):
        prepare(tmp_path, vocabulary=300)


def test_a_shard_that_unpacks_to_too_much(tmp_path, monkeypatch):
    write_shard(tmp_path / "a.parquet", 1)
    assert [*documents(tmp_path / "a.parquet")]
    monkeypatch.setattr(shards, "MAX_TEXT_BYTES", 1000)
    with pytest.raises(ShardError, match="unpacks to over 1000 bytes"):
        next(documents(tmp_path / "a.parquet"))


def test_what_is_trained_on_is_not_measured_on(tmp_path):
    for name in ("a", "b", "c"):
        write_shard(tmp_path / f"{name}.parquet", name == "b")
    with pytest.raises(ShardError, match=r"c\.parquet is for validation, and a\.parq"):
        prepare(tmp_path, vocabulary=300)


def test_two_columns_of_one_name_are_no_text(tmp_path):
    two = pyarrow.Table.from_arrays([pyarrow.array(["x"])] * 2, names=["text", "text"])
    parquet.write_table(two, tmp_path / "a.parquet")
    with pytest.raises(ShardError, match="or several"):
        next(documents(tmp_path / "a.parquet"))


def test_a_folder_that_is_prepared_and_read_only_can_be_used(tmp_path, monkeypatch):
    for number in range(2):
        write_shard(tmp_path / f"shard_{number}.parquet", number, documents=2)
    made = prepare(tmp_path, vocabulary=300)
    monkeypatch.setattr(shards.os, "access", lambda *_: False)

    def nothing(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(locks, "_locked", nothing)
    monkeypatch.setattr(manifest, "write", nothing)
    assert prepare(tmp_path, vocabulary=300) == made
    with pytest.raises(ShardError, match="Permission denied"):
        prepare(tmp_path, vocabulary=301)


@pytest.mark.parametrize("text", ["[", "[]", "{", "[" * 100_000, "x" * (2 * 1024**2)])
def test_a_manifest_that_can_not_be_read(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ShardError, match=r"manifest\.json can't be read: remove it"):
        manifest.recorded(tmp_path)


def test_a_full_disk_is_said_and_what_is_whole_is_kept(tmp_path, monkeypatch):
    for number in range(2):
        write_shard(tmp_path / f"shard_{number}.parquet", number, documents=2)

    def full(_path):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shards, "sha256", full)
        with pytest.raises(ShardError, match="No space left on device"):
            prepare(tmp_path, vocabulary=300)
    prepare(tmp_path, vocabulary=300)
    assert not [*tmp_path.rglob("*.part")]


def test_several_at_once_wait_for_each_other(tmp_path):
    for number in range(2):
        write_shard(tmp_path / f"shard_{number}.parquet", number, documents=4)
    made, said = [], []
    threads = [
        threading.Thread(
            target=lambda: made.append(prepare(tmp_path, vocabulary=300, say=said.append))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    assert len(made) == 3
    assert len(set(made)) == 1
    assert sum("tokenizing" in text for text in said) == 2


KILLED = """
import os, signal, sys
from pathlib import Path
from runner.gpu import shards
shards.is_right = lambda path: path.suffix == ".json" and path.is_file()
shards.record = lambda folder, made: (
    os.kill(os.getpid(), signal.SIGKILL) if any(n.endswith(".tokens") for n in made) else None
)
shards.prepare(Path(sys.argv[1]), vocabulary=300)
"""


def test_killed_while_it_works_it_goes_on(tmp_path):
    for number in range(2):
        write_shard(tmp_path / f"shard_{number}.parquet", number, documents=4)
    code = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False).returncode
    assert code == -9
    assert [*tmp_path.rglob("*.tokens")]  # there, and not recorded
    again = prepare(tmp_path, vocabulary=300)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    for shard in tmp_path.glob("*.parquet"):
        (fresh / shard.name).write_bytes(shard.read_bytes())
    assert prepare(fresh, vocabulary=300).digest == again.digest
