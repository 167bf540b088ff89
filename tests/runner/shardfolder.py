"""Small parquet shards of text, as the public ones are made."""

from __future__ import annotations

import random

import pyarrow
from pyarrow import parquet

WORDS = ["search", "trial", "the", "mechanism", "keeps", "42", "what's", "better\n", "\u4e2d\u6587"]


def write_shard(path, seed, documents=60):
    """A shard of random words; the same seed gives the same shard."""
    pick = random.Random(seed)
    texts = [" ".join(pick.choices(WORDS, k=80)) for _ in range(documents)]
    parquet.write_table(pyarrow.table({"text": texts}), path, row_group_size=16)


def write_shards(folder, count=3):
    """A folder of shards; gives it back."""
    for number in range(count):
        write_shard(folder / f"shard_{number:05d}.parquet", number)
    return folder
