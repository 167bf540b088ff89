"""Public text for the gpt-gpu task: parquet shards, a tokenizer trained on them once, token files.

    python -m runner.shards fetch var/shards --count 9     download, resumable, bounded
    python -m runner.shards prepare var/shards             tokenizer and token files

The last shard is for validation alone. Every file's SHA-256 is in a manifest beside it and is
checked before use; what is there and right is not made again. No torch here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import typer

BASE_URL = "https://huggingface.co/datasets/karpathy/climbmix-400b-shuffle/resolve/main"
LAST_SHARD = 6542
COLUMN = "text"
MAX_SHARDS = 500
MAX_SHARD_BYTES = 2 * 1024**3
MAX_DOCUMENT_CHARACTERS = 1_000_000
TOKENIZER_CHARACTERS = 300_000_000
TOKENIZER_DOCUMENT_CHARACTERS = 10_000
BATCH_DOCUMENTS = 256
ATTEMPTS = 5
TIMEOUT_SECONDS = 30.0
WAIT_SECONDS = 0.2
BEGIN = "<|begin|>"
# Contractions, words with one leading mark, numbers of at most two digits, marks, white space.
SPLIT = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
SHARD_NAME = re.compile(r"^[A-Za-z0-9_.-]{1,100}\.parquet$")

Say = Callable[[str], None]


class ShardError(RuntimeError):
    """Shards or what is made of them can't be used; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Prepared text: token files for training and validation (unsigned 16 bits, little endian),
    how many bytes each token stands for (0: none), and one digest over all of it."""

    train: tuple[Path, ...]
    validation: Path
    token_bytes: tuple[int, ...]
    digest: str


# --- fetching ---


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
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"shard_{number:05d}.parquet" for number in [*range(count), last]]
    with client or httpx.Client(follow_redirects=True, timeout=TIMEOUT_SECONDS) as http:
        for place, name in enumerate(names, 1):
            known = _manifest(folder).get(name)
            if known and (folder / name).is_file() and _sha256(folder / name) == known:
                say(f"{place} of {len(names)}: {name} is there")
                continue
            _download(http, f"{base_url}/{name}", folder / name)
            _record(folder, {name: _sha256(folder / name)})
            say(f"{place} of {len(names)}: {name}, {(folder / name).stat().st_size} bytes")


def _download(http: httpx.Client, url: str, path: Path) -> None:
    """One file, resumed from its part after a broken connection."""
    part = path.with_suffix(".part")
    why = ""
    for attempt in range(ATTEMPTS):
        time.sleep(attempt * WAIT_SECONDS)
        have = part.stat().st_size if part.is_file() else 0
        headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"}
        try:
            with http.stream("GET", url, headers=headers) as answer:
                if answer.status_code == 416:  # nothing is left to send
                    break
                if answer.status_code not in (200, 206):
                    why = f"HTTP {answer.status_code}"
                    continue
                _append(answer, part, have if answer.status_code == 206 else 0)
            break
        except httpx.HTTPError as error:
            why = f"{type(error).__name__}: {error}"
    else:
        raise ShardError(f"{url} can't be fetched after {ATTEMPTS} attempts: {why}")
    _check_parquet(part, url)
    part.replace(path)


def _append(answer: httpx.Response, part: Path, have: int) -> None:
    with part.open("ab" if have else "wb") as file:
        for data in answer.iter_raw():
            have += len(data)
            if have > MAX_SHARD_BYTES:
                raise ShardError(f"{answer.url} has over {MAX_SHARD_BYTES} bytes: no shard of text")
            file.write(data)


def _check_parquet(part: Path, url: str) -> None:
    with part.open("rb") as file:
        begin = file.read(4)
        file.seek(max(0, part.stat().st_size - 4))
        end = file.read(4)
    if begin != b"PAR1" or end != b"PAR1":
        part.unlink()
        raise ShardError(f"{url} gave no parquet file: is the address right? Try again")


# --- preparing ---


def prepare(folder: Path, *, vocabulary: int, say: Say = lambda _text: None) -> Tokens:
    """Tokenizer and token files for the shards in `folder`, made where they are not there or not
    right. The last shard by name is for validation. Raises ShardError."""
    shards = _shards(folder)
    digests = _check_shards(folder, shards)
    if not 300 <= vocabulary <= 2**16:
        raise ShardError(f"a vocabulary of {vocabulary}: give 300 to {2**16}")
    key = _digest({"shards": digests, "vocabulary": vocabulary, "split": SPLIT, "version": 1})
    work = folder / f"tokens-{key[:16]}"
    work.mkdir(exist_ok=True)
    tokenizer = _tokenizer(work, shards[:-1], vocabulary, say)
    files = [_token_file(work, shard, tokenizer, say) for shard in shards]
    lengths = _token_bytes(tokenizer)
    made = _manifest(work)
    digest = _digest(
        {"key": key, "files": {f.name: made[f.name] for f in files}, "tokenizer": made[TOKENIZER]}
    )
    return Tokens(train=tuple(files[:-1]), validation=files[-1], token_bytes=lengths, digest=digest)


def _shards(folder: Path) -> list[Path]:
    found = sorted(p for p in folder.glob("*.parquet") if SHARD_NAME.match(p.name))
    if len(found) < 2:
        raise ShardError(
            f"{folder} holds {len(found)} parquet shards, at least 2 are needed (the last one is "
            "for validation): `python -m runner.shards fetch "
            f"{folder} --count 9`, or choose local text with --data bytes"
        )
    if len(found) > MAX_SHARDS + 1:
        raise ShardError(f"{folder} holds {len(found)} shards: at most {MAX_SHARDS + 1} are used")
    return found


def _check_shards(folder: Path, shards: Sequence[Path]) -> dict[str, str]:
    """The shards' hashes, compared with the manifest's; new shards are recorded."""
    known = _manifest(folder)
    seen = {shard.name: _sha256(shard) for shard in shards}
    for name, digest in seen.items():
        if known.get(name, digest) != digest:
            raise ShardError(
                f"{folder / name} changed since it was recorded: put it back, or remove it and "
                "fetch it again"
            )
    if new := {name: digest for name, digest in seen.items() if name not in known}:
        _record(folder, new)
    return seen


def documents(shard: Path) -> Iterator[list[str]]:
    """The texts of a shard, in bounded batches. Raises ShardError."""
    try:
        import pyarrow as arrow  # noqa: PLC0415 - only who prepares shards needs it
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        raise ShardError("pyarrow is not installed: `pip install 'escapement[shards]'`") from None
    try:
        with parquet.ParquetFile(shard) as file:
            if COLUMN not in file.schema_arrow.names:
                raise ShardError(
                    f"{shard} has no column {COLUMN!r}: {file.schema_arrow.names[:10]}"
                )
            for batch in file.iter_batches(batch_size=BATCH_DOCUMENTS, columns=[COLUMN]):
                texts = batch.column(0).to_pylist()
                yield [str(text)[:MAX_DOCUMENT_CHARACTERS] for text in texts if text]
    except (arrow.ArrowException, OSError) as error:
        raise ShardError(f"{shard} can't be read: {error}; remove it and fetch it again") from None


def _tokenizer(work: Path, shards: Sequence[Path], vocabulary: int, say: Say) -> Any:
    """The tokenizer of these shards: as recorded, else trained now (the training shards alone)."""
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415 - only who prepares shards needs it
    except ImportError:
        raise ShardError(
            "tokenizers is not installed: `pip install 'escapement[shards]'`"
        ) from None
    path = work / TOKENIZER
    known = _manifest(work).get(TOKENIZER)
    if not (known and path.is_file() and _sha256(path) == known):
        say(f"training a tokenizer of {vocabulary} tokens")
        _write(path, _trained(shards, vocabulary).to_str().encode())
        _record(work, {TOKENIZER: _sha256(path)})
    return Tokenizer.from_file(str(path))


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
    known = _manifest(work).get(path.name)
    if known and path.is_file() and _sha256(path) == known:
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
    _record(work, {path.name: _sha256(path)})
    return path


def _token_bytes(tokenizer: Any) -> tuple[int, ...]:
    """Bytes of each token: in a byte-level vocabulary, one character stands for one byte."""
    names = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    return tuple(0 if name == BEGIN else len(name) for name in names)


# --- manifests ---


def verify(path: Path) -> None:
    """Raises ShardError unless `path` is what its folder's manifest recorded."""
    known = _manifest(path.parent).get(path.name)
    if known is None or not path.is_file() or _sha256(path) != known:
        raise ShardError(f"{path} is not what was prepared: remove it; `prepare` makes it anew")


def _manifest(folder: Path) -> dict[str, str]:
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text())
        return {str(name): str(digest) for name, digest in found.items()}
    except (ValueError, AttributeError):
        raise ShardError(f"{path} can't be read: remove it; hashes are then taken anew") from None


def _record(folder: Path, digests: dict[str, str]) -> None:
    known = {**_manifest(folder), **digests}
    _write(folder / MANIFEST, json.dumps(known, indent=1, sort_keys=True).encode())


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.command("fetch")
def fetch_command(folder: Path, count: int = 9, base_url: str = BASE_URL) -> None:
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
