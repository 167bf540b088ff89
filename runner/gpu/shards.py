"""Public text for the gpt-gpu task: parquet shards, a tokenizer trained on them once, token files.

    python -m runner.gpu.shards fetch var/shards --count 10    download, resumable, bounded
    python -m runner.gpu.shards prepare var/shards             tokenizer and token files

The last shard is for validation alone. Every file's SHA-256 is in a manifest beside it and is
checked before use; what is there and right is not made again. No torch here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import typer

from runner.gpu.fetching import BASE_URL, LAST_SHARD, MAX_SHARDS, Say, fetch_into
from runner.gpu.manifest import ShardError, is_right, record, recorded, sha256, write
from runner.processes.locks import LockError, one_of

COLUMN = "text"
MAX_TEXT_BYTES = 16 * 1024**3  # of one shard, unpacked
MAX_GROUP_BYTES = 2 * 1024**3
LOCK = ".lock"
LOCK_SECONDS = 6 * 3600.0
MAX_DOCUMENT_CHARACTERS = 1_000_000
TOKENIZER_CHARACTERS = 300_000_000
TOKENIZER_DOCUMENT_CHARACTERS = 10_000
BATCH_DOCUMENTS = 256
BEGIN = "<|begin|>"
# Contractions, words with one leading mark, numbers of at most two digits, marks, white space.
SPLIT = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
TOKENIZER = "tokenizer.json"
SHARD_NAME = re.compile(r"^[A-Za-z0-9_.-]{1,100}\.parquet$")


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Prepared text: token files for training and validation (unsigned 16 bits, little endian),
    how many bytes each token stands for (0: none), the token before each document, and one digest
    over all of it."""

    train: tuple[Path, ...]
    validation: Path
    token_bytes: tuple[int, ...]
    begin: int
    digest: str


@contextmanager
def _alone(folder: Path, say: Say) -> Iterator[None]:
    """Only one process at a time works in a folder. What the system refuses is a ShardError."""

    def waiting() -> None:
        say(f"another process works in {folder}: waiting for it")

    try:
        lock = one_of([folder / LOCK], wait_seconds=LOCK_SECONDS, waiting=waiting)
        with lock if os.access(folder, os.W_OK) else nullcontext():  # prepared for reading alone
            yield
    except LockError as error:
        raise ShardError(str(error)) from None
    except OSError as error:
        raise ShardError(
            f"{folder} can't be worked in: {error.strerror or error}; what is whole is kept, start "
            "it again when there is room"
        ) from None


def fetch(
    folder: Path,
    *,
    count: int,
    base_url: str = BASE_URL,
    last: int = LAST_SHARD,
    say: Say = print,
    client: httpx.Client | None = None,
) -> None:
    """Download `count` training shards and the validation shard (number `last`). What is there
    with its recorded hash is kept; a part is gone on with. Raises ShardError."""
    if not 1 <= count <= min(MAX_SHARDS, last):
        raise ShardError(f"{count} shards: give 1 to {min(MAX_SHARDS, last)}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ShardError(f"{folder} can't be made: {error.strerror}") from None
    with _alone(folder, say):
        fetch_into(folder, count=count, base_url=base_url, last=last, say=say, client=client)


# --- preparing ---


def prepare(folder: Path, *, vocabulary: int, say: Say = lambda _text: None) -> Tokens:
    """Tokenizer and token files for the shards in `folder`, made where they are not there or not
    right. The last shard by name is for validation. Raises ShardError."""
    _shards(folder)  # there is something to work on
    if not 300 <= vocabulary <= 2**16:
        raise ShardError(f"a vocabulary of {vocabulary}: give 300 to {2**16}")
    with _alone(folder, say):
        return _prepared(folder, vocabulary, say)


def _prepared(folder: Path, vocabulary: int, say: Say) -> Tokens:
    shards = _shards(folder)
    digests = _check_shards(folder, shards)
    key = _digest({"shards": digests, "vocabulary": vocabulary, "split": SPLIT, "version": 2})
    work = folder / f"tokens-{key[:16]}"
    work.mkdir(exist_ok=True)
    tokenizer = _tokenizer(work, shards[:-1], vocabulary, say)
    files = [_token_file(work, shard, tokenizer, say) for shard in shards]
    made = recorded(work)
    digest = _digest(
        {"key": key, "files": {f.name: made[f.name] for f in files}, "tokenizer": made[TOKENIZER]}
    )
    return Tokens(
        train=tuple(files[:-1]),
        validation=files[-1],
        token_bytes=_token_bytes(tokenizer),
        begin=tokenizer.token_to_id(BEGIN),
        digest=digest,
    )


def _shards(folder: Path) -> list[Path]:
    found = sorted(p for p in folder.glob("*.parquet") if SHARD_NAME.match(p.name) and p.is_file())
    if len(found) < 2:
        raise ShardError(
            f"{folder} holds {len(found)} parquet shards, at least 2 are needed (the last one is "
            "for validation): `python -m runner.gpu.shards fetch "
            f"{folder} --count 10`, or choose local text with --data bytes"
        )
    if len(found) > MAX_SHARDS + 1:
        raise ShardError(f"{folder} holds {len(found)} shards: at most {MAX_SHARDS + 1} are used")
    return found


def _check_shards(folder: Path, shards: Sequence[Path]) -> dict[str, str]:
    """The shards' hashes, compared with the manifest's; new shards are recorded."""
    known = recorded(folder)
    seen = {shard.name: sha256(shard) for shard in shards}
    for name, digest in seen.items():
        if known.get(name, digest) != digest:
            raise ShardError(
                f"{folder / name} changed since it was recorded: put it back, or remove it and "
                "fetch it again"
            )
    *training, validation = seen.items()
    if twice := [name for name, digest in training if digest == validation[1]]:
        raise ShardError(
            f"{folder / validation[0]} is for validation, and {twice[0]} is the same: what is "
            "trained on can't be measured on, remove one"
        )
    if new := {name: digest for name, digest in seen.items() if name not in known}:
        record(folder, new)
    return seen


def documents(shard: Path) -> Iterator[list[str]]:
    """The texts of a shard, in bounded batches: none that is empty or null, and a very long one in
    pieces. Raises ShardError."""
    try:
        import pyarrow as arrow  # noqa: PLC0415 - only who prepares shards needs it
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        raise ShardError("pyarrow is not installed: `pip install -e '.[shards]'`") from None
    try:
        with parquet.ParquetFile(shard) as file:
            _check_column(shard, file)
            for batch in file.iter_batches(batch_size=BATCH_DOCUMENTS, columns=[COLUMN]):
                yield [
                    text[start : start + MAX_DOCUMENT_CHARACTERS]
                    for text in batch.column(0).to_pylist()
                    for start in range(0, len(text or ""), MAX_DOCUMENT_CHARACTERS)
                ]
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ShardError(f"{shard} can't be read: {error}; remove it and fetch it again") from None


def _check_column(shard: Path, file: Any) -> None:
    schema, about = file.schema_arrow, file.metadata
    if schema.names.count(COLUMN) != 1:
        raise ShardError(f"{shard} has no column {COLUMN!r}, or several: {schema.names[:10]}")
    kind = str(schema.field(COLUMN).type)
    if kind not in ("string", "large_string", "string_view"):
        raise ShardError(f"{shard}: the column {COLUMN!r} holds {kind[:100]}, no text")
    groups = [about.row_group(i) for i in range(about.num_row_groups)]
    columns = [group.column(i) for group in groups for i in range(group.num_columns)]
    sizes = [one.total_uncompressed_size for one in columns if one.path_in_schema == COLUMN]
    if sum(sizes) > MAX_TEXT_BYTES or max(sizes, default=0) > MAX_GROUP_BYTES:
        raise ShardError(
            f"{shard} unpacks to over {MAX_TEXT_BYTES} bytes, or over {MAX_GROUP_BYTES} in one row "
            "group: write it anew in smaller ones"
        )


def _tokenizer(work: Path, shards: Sequence[Path], vocabulary: int, say: Say) -> Any:
    """The tokenizer of these shards: as recorded, else trained now (the training shards alone)."""
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415 - only who prepares shards needs it
    except ImportError:
        raise ShardError("tokenizers is not installed: `pip install -e '.[shards]'`") from None
    path = work / TOKENIZER
    if not is_right(path):
        say(f"training a tokenizer of {vocabulary} tokens")
        write(path, _trained(shards, vocabulary).to_str().encode())
        record(work, {TOKENIZER: sha256(path)})
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True  # a text that spells the begin token is a text
    return tokenizer


def _trained(shards: Sequence[Path], vocabulary: int) -> Any:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers  # noqa: PLC0415

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BEGIN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sample(shards), trainer)
    return tokenizer


def _sample(shards: Sequence[Path]) -> Iterator[str]:
    left = TOKENIZER_CHARACTERS
    for shard in shards:
        for texts in documents(shard):
            for text in texts:
                if left <= 0:
                    return
                left -= len(text[:TOKENIZER_DOCUMENT_CHARACTERS])
                yield text[:TOKENIZER_DOCUMENT_CHARACTERS]


def _token_file(work: Path, shard: Path, tokenizer: Any, say: Say) -> Path:
    """One shard as tokens, each document after a begin token."""
    import numpy  # noqa: PLC0415 - only who prepares shards needs it

    path = work / f"{shard.stem}.tokens"
    if is_right(path):
        return path
    say(f"tokenizing {shard.name}")
    begin = tokenizer.token_to_id(BEGIN)
    part = path.with_suffix(".part")
    total = 0
    with part.open("wb") as file:
        for texts in documents(shard):
            for one in tokenizer.encode_batch(texts, add_special_tokens=False):
                total += len(one.ids) + 1
                file.write(numpy.array([begin, *one.ids], dtype="<u2").tobytes())
    if total == 0:
        raise ShardError(f"{shard} holds no text: remove it and fetch it again")
    part.replace(path)
    record(work, {path.name: sha256(path)})
    return path


def _token_bytes(tokenizer: Any) -> tuple[int, ...]:
    """Bytes of each token: in a byte-level vocabulary, one character stands for one byte."""
    names = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    return tuple(0 if name == BEGIN else len(name) for name in names)


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.command("fetch")
def fetch_command(folder: Path, count: int = 10, base_url: str = BASE_URL) -> None:
    """Download training shards and the validation shard; start it again to go on."""
    _told(lambda: fetch(folder, count=count, base_url=base_url, say=typer.echo))


@app.command("prepare")
def prepare_command(folder: Path, vocabulary: int = 8192) -> None:
    """Train the tokenizer and write the token files, as the task does at its start."""
    _told(lambda: typer.echo(prepare(folder, vocabulary=vocabulary, say=typer.echo).digest))


def _told(work: Callable[[], object]) -> None:
    try:
        work()
    except ShardError as error:
        typer.echo(f"ERROR: {error}")
        raise typer.Exit(2) from None


if __name__ == "__main__":
    app()
