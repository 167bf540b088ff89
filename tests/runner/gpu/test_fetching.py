"""Downloads from a local server that breaks off, redirects, lies and floods."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from runner.gpu import fetching
from runner.gpu.manifest import ShardError, recorded
from runner.gpu.shards import fetch
from tests.runner.shardfolder import write_shard


class Served:
    """What the server has and what it was asked; `rules` change an answer."""

    def __init__(self, data):
        self.data, self.version, self.named = data, "one", ""
        self.asked: list[tuple[str, str]] = []
        self.break_off = 0  # answers
        self.statuses: list[int] = []
        self.shift = 0  # of the range that is sent


@pytest.fixture
def served(tmp_path):
    source = tmp_path / "source.parquet"
    write_shard(source, 1)
    return Served(source.read_bytes())


@pytest.fixture
def url(served):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path.startswith("/old/"):
                self.send_response(302)
                self.send_header("Location", self.path.replace("/old/", "/main/"))
                if served.named:
                    self.send_header("X-Linked-ETag", f'"{served.named}"')
                self.end_headers()
                return
            if self.path.startswith("/loop/"):
                self.send_response(302)
                self.send_header("Location", self.path)
                self.end_headers()
                return
            wanted = self.headers.get("Range", "")
            served.asked.append((self.path.rpartition("/")[2], wanted))
            if served.statuses and (status := served.statuses.pop(0)) != 200:
                self.send_error(status)
                return
            same = self.headers.get("If-Range") == f'"{served.version}"'
            begin = int(wanted[6:-1]) if wanted and same else 0
            if begin and begin >= len(served.data):
                self.send_error(416)
                return
            body = served.data[begin:]
            self.send_response(206 if begin else 200)
            self.send_header("ETag", f'"{served.version}"')
            if begin:
                span = f"bytes {begin + served.shift}-{len(served.data) - 1}/{len(served.data)}"
                self.send_header("Content-Range", span)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            cut = served.break_off > 0
            served.break_off -= 1
            self.wfile.write(body[: len(body) // 2] if cut else body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def get(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "WAIT_SECONDS", 0.0)

    def call(address, **options):
        options = {"count": 1, "last": 7, "say": lambda _text: None} | options
        client = httpx.Client(timeout=120, trust_env=False, follow_redirects=True, max_redirects=3)
        fetch(tmp_path / "shards", base_url=address, client=client, **options)
        return {p.name: p.read_bytes() for p in (tmp_path / "shards").glob("*.parquet")}

    return call


def test_it_goes_on_after_broken_connections_and_keeps_what_is_there(served, url, get, tmp_path):
    served.break_off = 2
    both = {"shard_00000.parquet": served.data, "shard_00007.parquet": served.data}
    assert get(f"{url}/main/") == both
    ranges = [wanted for name, wanted in served.asked if name == "shard_00000.parquet"]
    half = len(served.data) // 2
    assert ranges == ["", f"bytes={half}-", f"bytes={half + (len(served.data) - half) // 2}-"]
    before = len(served.asked)
    assert get(f"{url}/main") == both
    assert len(served.asked) == before
    (tmp_path / "shards" / "shard_00000.parquet").write_bytes(b"PAR1 spoiled PAR1")
    assert get(f"{url}/main") == both
    assert {p.suffix for p in (tmp_path / "shards").iterdir()} <= {".parquet", ".json", ""}


def test_a_file_that_changed_meanwhile_is_fetched_from_its_beginning(served, url, get):
    served.statuses, served.break_off = [200, 404], 1
    with pytest.raises(ShardError, match="HTTP 404"):
        get(f"{url}/main")
    served.data, served.version = b"PAR1 another one, as long as you like PAR1", "two"
    assert get(f"{url}/main")["shard_00000.parquet"] == served.data


def test_a_part_that_is_whole_already(served, url, get, tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "shard_00000.part").write_bytes(served.data)
    (tmp_path / "shards" / "shard_00000.version").write_text('"one"')
    assert get(f"{url}/main")["shard_00000.parquet"] == served.data


@pytest.mark.parametrize(("status", "asked"), [(404, 1), (403, 1), (503, 5), (429, 5)])
def test_what_may_pass_is_asked_again(served, url, get, status, asked):
    served.statuses = [status] * 9
    with pytest.raises(ShardError, match=f"HTTP {status}"):
        get(f"{url}/main")
    assert len(served.asked) == asked


def test_redirects_are_followed_and_their_hash_is_checked(served, url, get, tmp_path):
    served.named = hashlib.sha256(served.data).hexdigest()
    assert len(get(f"{url}/old")) == 2
    assert recorded(tmp_path / "shards")["shard_00007.parquet"] == served.named
    (tmp_path / "shards" / "shard_00007.parquet").unlink()
    served.data = served.data + b"PAR1"
    with pytest.raises(ShardError, match="another hash than its server names"):
        get(f"{url}/old")
    served.named = ""
    with pytest.raises(ShardError, match="another file than was recorded"):
        get(f"{url}/old")
    with pytest.raises(ShardError, match="TooManyRedirects"):
        get(f"{url}/loop")
    assert not [*(tmp_path / "shards").glob("*.part")]


def test_what_is_no_shard(served, url, get, monkeypatch):
    served.data = b"<html>no shard</html>"
    with pytest.raises(ShardError, match="no parquet file"):
        get(f"{url}/main")
    served.data = b""
    with pytest.raises(ShardError, match="no parquet file"):
        get(f"{url}/main")
    served.data = b"PAR1" * 100
    monkeypatch.setattr(fetching, "MAX_SHARD_BYTES", 100)
    with pytest.raises(ShardError, match="over 100 bytes"):
        get(f"{url}/main")


def test_another_range_than_was_asked_for(served, url, get):
    served.break_off, served.shift = 1, 1
    with pytest.raises(ShardError, match="another range"):
        get(f"{url}/main")


def test_what_can_not_be_asked(get, tmp_path):
    with pytest.raises(ShardError, match="UnsupportedProtocol"):
        get("file:///etc")
    with pytest.raises(ShardError, match="can't be fetched: InvalidURL"):
        get("http://a:b")
    for count in (0, -1, 8, 501):
        with pytest.raises(ShardError, match="give 1 to 7"):
            get("http://127.0.0.1:1", count=count)
    (tmp_path / "file").write_text("")
    with pytest.raises(ShardError, match="can't be made"):
        fetch(tmp_path / "file" / "below", count=1)
