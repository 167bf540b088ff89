"""Rows of tokens: packed by documents, all of them, the same for the same seed."""

from __future__ import annotations

import json
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from runner.gpt.options import TrainingFailure
from runner.gpu.manifest import ShardError
from runner.gpu.shards import prepare
from runner.gpu.space import SETTINGS
from runner.gpu.text import Text, batches, packed, text_of, validation_rows
from tests.runner.shardfolder import write_shard

TINY = SETTINGS["tiny"]
CPU = torch.device("cpu")
BEGIN = 0


def stream(lengths):
    """Documents of these lengths: a begin, then numbers that are all different."""
    total = sum(lengths)
    numbers = torch.arange(1, total + 1)
    places = torch.tensor([0, *lengths[:-1]]).cumsum(0)
    numbers[places] = BEGIN
    return numbers.to(torch.uint16)


def text_with(lengths, held_out=(70,) * 9):
    return Text(
        train=(stream(lengths),),
        validation=stream(list(held_out)),
        token_bytes=torch.ones(2**16, dtype=torch.int32),
        begin=BEGIN,
    )


@given(some.lists(some.integers(1, 40), max_size=60), some.integers(2, 20))
def test_packed_rows_are_full_begin_with_a_document_and_lose_only_ends(lengths, size):
    documents, place = [], 0
    for length in lengths:
        documents.append(torch.arange(place, place + length))
        place += length
    begins = {int(one[0]) for one in documents}
    seen = []
    for row in packed(iter(documents), size):
        assert row.numel() == size
        assert int(row[0]) in begins
        seen += row.tolist()
        for before, after in zip(row.tolist(), row.tolist()[1:], strict=False):
            assert after == before + 1 or after in begins
    assert len(seen) == len(set(seen))


def test_the_largest_that_fits_comes_first_and_the_shortest_is_cut():
    documents = [torch.full((n,), ord(name)) for name, n in (("a", 5), ("b", 3), ("c", 9))]

    def rows(size):
        return ["".join(map(chr, row.tolist())) for row in packed(iter(documents), size)]

    assert rows(6) == ["aaaaab", "cccccc"]
    assert rows(8) == ["aaaaabbb", "cccccccc"]
    assert rows(10) == ["cccccccccb"]  # what is left fills no second row


def test_training_rows_are_the_seeds_and_never_end():
    text = text_with([30, 50, 80, 20, 65] * 8)

    def first(seed):
        feed = batches(text, 4, TINY.sequence_length, seed=seed, device=CPU)
        return [inputs for inputs, _ in islice(feed, 20)]

    assert all(torch.equal(a, b) for a, b in zip(first(1), first(1), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first(1), first(2), strict=True))
    inputs, targets = next(batches(text, 4, TINY.sequence_length, seed=0, device=CPU))
    assert inputs.shape == targets.shape == (4, TINY.sequence_length)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert (inputs[:, 0] == BEGIN).all()


def test_validation_rows_are_the_same_each_time_and_no_more_than_wanted():
    text = text_with([70], held_out=[70, 30, 200, 65] * 40)
    rows = [row.tolist() for row in validation_rows(text, TINY)]
    assert rows == [row.tolist() for row in validation_rows(text, TINY)]
    assert len(rows) == TINY.evaluation_tokens // TINY.sequence_length
    assert [*validation_rows(text_with([70], held_out=[9]), TINY)] == []


def test_token_files_that_can_not_be_used(tmp_path):
    for number in range(2):
        write_shard(tmp_path / f"{number}.parquet", number, documents=3)
    made = prepare(tmp_path, vocabulary=300)
    told = {
        "train": [str(path) for path in made.train],
        "validation": str(made.validation),
        "token_bytes": made.token_bytes,
        "begin": made.begin,
    }
    names = tmp_path / "tokens.json"
    names.write_text(json.dumps(told))
    assert text_of(names, tmp_path).vocabulary == len(made.token_bytes)
    names.write_text(json.dumps({**told, "begin": made.begin + 1}))
    with pytest.raises(TrainingFailure, match="begins with no document"):
        text_of(names, tmp_path)
    for broken in ("{", "[]", "{}", json.dumps({**told, "token_bytes": ["x"]})):
        names.write_text(broken)
        with pytest.raises(TrainingFailure, match="names no token files") as caught:
            text_of(names, tmp_path)
        assert caught.value.failure == "infrastructure"
    names.write_text(json.dumps(told))
    made.validation.write_bytes(b"")
    with pytest.raises(ShardError, match="not what was prepared"):
        text_of(names, tmp_path)
