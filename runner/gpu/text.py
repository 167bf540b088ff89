"""The text of the gpt-gpu task as rows of tokens: for training without end, for validation always
the same.

Rows of token files begin with a document and are packed with whole documents, the largest that
fits first; where none fits, the shortest is cut to fill the row (the public loader's way). Bytes of
local text know no documents: rows are cut from anywhere. Knows torch, no model and no knobs.
"""

from __future__ import annotations

import json
from bisect import bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import torch
from torch import Tensor

from runner.gpt.corpus import prepare, read
from runner.gpt.options import TrainingFailure
from runner.gpu.manifest import verify
from runner.gpu.space import Setting

BUFFER_DOCUMENTS = 1000


@dataclass(frozen=True, kw_only=True)
class Text:
    """Token files as tensors in memory-mapped files, what each token is in bytes, and the token
    that begins each document (None: there are no documents)."""

    train: tuple[Tensor, ...]
    validation: Tensor
    token_bytes: Tensor
    begin: int | None

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return self.token_bytes.numel()


def text_of(tokens: Path | None, cache: Path, corpus: str = "") -> Text:
    """The token files that `tokens` names (a JSON file of the task), or bytes of local text: those
    of `corpus` (PATH:DIGEST:TRAIN_BYTES, as the task collected them), else collected now.

    Raises TrainingFailure, ShardError, CorpusError."""
    if tokens is None:
        train, held_out = _local(cache, corpus)
        return Text(
            train=(torch.frombuffer(bytearray(train), dtype=torch.uint8),),
            validation=torch.frombuffer(bytearray(held_out), dtype=torch.uint8),
            token_bytes=torch.ones(256, dtype=torch.int32),
            begin=None,
        )
    try:
        told = json.loads(tokens.read_text())
        begin = int(told["begin"])
        return Text(
            train=tuple(_mapped(Path(path), begin) for path in told["train"]),
            validation=_mapped(Path(told["validation"]), begin),
            token_bytes=torch.tensor(told["token_bytes"], dtype=torch.int32),
            begin=begin,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingFailure(
            "infrastructure", f"{tokens} names no token files ({error!r}): the task writes it anew"
        ) from None


def _local(cache: Path, corpus: str) -> tuple[bytes, bytes]:
    if not corpus:
        made = prepare(cache)
        return read(made.path, digest=made.digest, train_bytes=made.train_bytes)
    path, digest, size = corpus.rsplit(":", 2)
    return read(Path(path), digest=digest, train_bytes=int(size))


def _mapped(path: Path, begin: int) -> Tensor:
    verify(path)
    file = torch.from_file(str(path), dtype=torch.uint16, size=path.stat().st_size // 2)
    if not file.numel() or int(file[0]) != begin:
        raise TrainingFailure("infrastructure", f"{path} begins with no document: remove it")
    return file


def batches(
    text: Text, rows: int, length: int, *, seed: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets for ever, in an order that `seed` gives."""
    generator = torch.Generator().manual_seed(seed)
    if text.begin is None:
        one_row = _anywhere(text.train[0], length + 1, generator)
    else:
        one_row = packed(_shuffled(text.train, text.begin, generator), length + 1)
    while True:
        window = torch.stack(list(islice(one_row, rows))).to(torch.int64)
        if device.type == "cuda":
            window = window.pin_memory().to(device, non_blocking=True)
        yield window[:, :-1], window[:, 1:]


def validation_rows(text: Text, setting: Setting) -> Iterator[Tensor]:
    """The rows that are measured, the same each time, whatever the knobs."""
    size = setting.sequence_length + 1
    wanted = setting.evaluation_tokens // setting.sequence_length
    if text.begin is not None:
        yield from islice(packed(_documents(text.validation, text.begin), size), wanted)
        return
    room = text.validation.numel() - size
    if room >= 0:
        for start in torch.linspace(0, room, min(wanted, room + 1), dtype=torch.float64).long():
            yield text.validation[int(start) : int(start) + size]


def packed(documents: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    """Rows of `size` tokens, each beginning with a document's begin. What is cut off is lost."""
    waiting: list[tuple[int, int]] = []  # length and number, sorted
    known: dict[int, Tensor] = {}
    numbers = count()
    while True:
        parts, left = [], size
        while left:
            for document in islice(documents, BUFFER_DOCUMENTS - len(waiting)):
                number = next(numbers)
                known[number] = document
                insort(waiting, (document.numel(), number))
            if not waiting:
                return  # what is left fills no row
            fits = bisect_right(waiting, left, key=lambda one: one[0])
            _, number = waiting.pop(max(fits - 1, 0))
            part = known.pop(number)[:left]
            parts.append(part)
            left -= part.numel()
        yield torch.cat(parts)


def _documents(
    file: Tensor, begin: int, generator: torch.Generator | None = None
) -> Iterator[Tensor]:
    starts = (file == begin).nonzero().squeeze(1)
    ends = torch.cat([starts[1:], torch.tensor([file.numel()])])
    number = starts.numel()
    order = (
        torch.arange(number) if generator is None else torch.randperm(number, generator=generator)
    )
    for start, end in zip(starts[order].tolist(), ends[order].tolist(), strict=True):
        yield file[start:end]


def _shuffled(
    files: tuple[Tensor, ...], begin: int, generator: torch.Generator
) -> Iterator[Tensor]:
    while True:
        for place in torch.randperm(len(files), generator=generator).tolist():
            yield from _documents(files[place], begin, generator)


def _anywhere(text: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    if text.numel() < size:
        raise TrainingFailure("infrastructure", f"the text has no {size} tokens")
    while True:
        start = int(torch.randint(0, text.numel() - size + 1, (1,), generator=generator))
        yield text[start : start + size]
