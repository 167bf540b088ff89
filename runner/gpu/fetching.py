"""Downloads public shards of text: resumable, bounded, checked. Reads no text and knows no task.

A file is taken only if it is whole, is parquet, and has the hash that its server names
(`X-Linked-ETag`, where it does) and that an earlier download recorded (where there was one).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from runner.gpu.manifest import ShardError, is_right, record, recorded, sha256

BASE_URL = "https://huggingface.co/datasets/karpathy/climbmix-400b-shuffle/resolve/main"
LAST_SHARD = 6542
MAX_SHARDS = 500
MAX_SHARD_BYTES = 2 * 1024**3
MAX_SECONDS = 3600.0  # of one answer
ATTEMPTS = 5
TIMEOUT_SECONDS = 30.0
WAIT_SECONDS = 0.2
MAX_REDIRECTS = 5
SHA256 = re.compile(r'^"?([0-9a-f]{64})"?$')
NAMED_HASH = "x-linked-etag"
AGAIN = (408, 425, 429, 500, 502, 503, 504)

Say = Callable[[str], None]


def fetch_into(
    folder: Path,
    *,
    count: int,
    base_url: str,
    last: int,
    say: Say,
    client: httpx.Client | None,
) -> None:
    """Download `count` training shards and the validation shard (number `last`). What is there
    with its recorded hash is kept; a part is gone on with. Raises ShardError, OSError."""
    names = [f"shard_{number:05d}.parquet" for number in [*range(count), last]]
    http = client or httpx.Client(
        follow_redirects=True, max_redirects=MAX_REDIRECTS, timeout=TIMEOUT_SECONDS
    )
    with http:
        for place, name in enumerate(names, 1):
            path = folder / name
            if is_right(path):
                say(f"{place} of {len(names)}: {name} is there")
                continue
            part = path.with_suffix(".part")
            named = _download(http, f"{base_url.rstrip('/')}/{name}", part)
            digest = _checked(part, f"{base_url}/{name}", named, recorded(folder).get(name))
            part.replace(path)
            _version(part).unlink(missing_ok=True)
            record(folder, {name: digest})
            say(f"{place} of {len(names)}: {name}, {path.stat().st_size} bytes")


def _download(http: httpx.Client, url: str, part: Path) -> str | None:
    """One file, resumed from its part after a broken connection; the hash its server names."""
    why, named = "", None
    for attempt in range(ATTEMPTS):
        time.sleep(attempt * WAIT_SECONDS)
        have = part.stat().st_size if part.is_file() else 0
        headers = {"Accept-Encoding": "identity"}
        if have and _version(part).is_file():
            version = _version(part).read_text()
            headers |= {"Range": f"bytes={have}-", "If-Range": version}
        try:
            with http.stream("GET", url, headers=headers) as answer:
                named = _named_hash(answer) or named
                if answer.status_code == 416:  # nothing is left to send
                    return named
                if answer.status_code in (200, 206):
                    _take(answer, part, have)
                    return named
                why = f"HTTP {answer.status_code}"
                if answer.status_code not in AGAIN:
                    break
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = f"{type(error).__name__}: {error}"
    raise ShardError(f"{url} can't be fetched: {why}; start it again to go on")


def _take(answer: httpx.Response, part: Path, have: int) -> None:
    """Write an answer to its place in the part. Only what has a version can be gone on with."""
    if answer.status_code == 206:
        if not answer.headers.get("content-range", "").startswith(f"bytes {have}-"):
            part.unlink()
            raise ShardError(f"{answer.url} sent another range than was asked for: try again")
    else:
        have = 0
        _version(part).unlink(missing_ok=True)
        if version := answer.headers.get("etag") or answer.headers.get("last-modified"):
            _version(part).write_text(version)
    end = time.monotonic() + MAX_SECONDS
    with part.open("ab" if have else "wb") as file:
        for data in answer.iter_raw():
            have += len(data)
            if have > MAX_SHARD_BYTES:
                part.unlink()
                raise ShardError(f"{answer.url} has over {MAX_SHARD_BYTES} bytes: no shard of text")
            if time.monotonic() > end:
                raise ShardError(f"{answer.url} took over {MAX_SECONDS:.0f} s: start it again")
            file.write(data)


def _named_hash(answer: httpx.Response) -> str | None:
    for one in [*answer.history, answer]:
        if found := SHA256.match(one.headers.get(NAMED_HASH, "")):
            return found[1]
    return None


def _checked(part: Path, url: str, named: str | None, known: str | None) -> str:
    """The part's hash. Raises ShardError, and removes the part, if it is not what it should be."""
    with part.open("rb") as file:
        begin = file.read(4)
        file.seek(max(0, part.stat().st_size - 4))
        end = file.read(4)
    digest = sha256(part)
    if begin != b"PAR1" or end != b"PAR1":
        why = f"{url} gave no parquet file: is the address right? Try again"
    elif named not in (None, digest):
        why = f"{url} came with another hash than its server names: try again"
    elif known not in (None, digest):
        why = (
            f"{url} is another file than was recorded (sha256 {digest[:12]}, recorded "
            f"{str(known)[:12]}): fetch into an empty folder, or take it out of the manifest"
        )
    else:
        return digest
    part.unlink()
    _version(part).unlink(missing_ok=True)
    raise ShardError(why)


def _version(part: Path) -> Path:
    return part.with_suffix(".version")
