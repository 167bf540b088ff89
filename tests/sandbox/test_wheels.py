"""Wheels through real pip, from an index on this machine: what comes in, and what does not."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sandbox import depreq, layout, lock, wheels
from sandbox.errors import InfrastructureError
from sandbox.lock import Lock, Pin
from sandbox.vulnerabilities import Scan
from sandbox.wheel_facts import RequestError
from sandbox.wheels import Trouble, WheelError

_spec = importlib.util.spec_from_file_location(
    "wheel_maker", Path(__file__).with_name("wheel_maker.py")
)
assert _spec is not None
assert _spec.loader is not None
wheel_maker = importlib.util.module_from_spec(_spec)
sys.modules["wheel_maker"] = wheel_maker
_spec.loader.exec_module(wheel_maker)

NOW = datetime(2026, 1, 2, tzinfo=UTC)
EMPTY = Lock(pins=())


def clean(lines: Any) -> Scan:
    return Scan(lock=tuple(lines), source="snapshot", dated="2026-01-01T00:00:00Z")


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes wheels in the folder where pip looks, and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("ESCAPEMENT_VAR", str(tmp_path / "var"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    made: Callable[..., Path] = functools.partial(wheel_maker.make_wheel, folder)
    return made


def examine(pin: str, before: Lock = EMPTY, **more: Any) -> depreq.Request:
    return depreq.examine(pin, now=NOW, lock=before, scan=clean, **more)


def pin_of(path: Path) -> Pin:
    name, version = path.name.split("-")[:2]
    return Pin(name=name.replace("_", "-"), version=version, hashes=(wheels.digest(path),))


def test_a_package_comes_with_what_it_needs_at_the_lock_s_versions(make: Any) -> None:
    base = make("base", "1.0")
    make("base", "2.0")
    make("helper", "0.3", needs=["base>=1"])
    make("big", "1.0", needs=["helper", "base"], licence="BSD-3-Clause")
    before = EMPTY.extended([pin_of(base)], {})
    made = examine("Big==1.0", before, modules={"big": ()}, keep=True)
    assert made.problems == ()
    assert made.brings == ("helper==0.3",), "base is there, in its version"
    assert made.modules == {"big": ("LIMIT",)}
    assert made.lock.lines() == ["base==1.0", "big==1.0", "helper==0.3"]
    assert "+big==1.0" in made.diff
    assert "base" not in made.diff
    kept = {wheels.stored(p) for p in made.lock.pins if p.name != "base"}
    assert None not in kept


def test_what_does_not_go_with_the_lock_is_named(make: Any) -> None:
    base = make("base", "1.0")
    make("helper", "0.3", needs=["base>=2"])
    make("base", "2.0")
    make("big", "1.0", needs=["helper"])
    with pytest.raises(WheelError) as caught:
        examine("big==1.0", EMPTY.extended([pin_of(base)], {}))
    assert caught.value.code == Trouble.CONFLICT


def test_sources_alone_are_not_taken_and_nothing_of_them_runs(make: Any, tmp_path: Path) -> None:
    import io
    import tarfile

    ran = tmp_path / "ran"
    text = f"open({str(ran)!r}, 'w')\nfrom setuptools import setup\nsetup(name='sly')\n".encode()
    with tarfile.open(tmp_path / "index/sly-1.0.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("sly-1.0/setup.py")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))
    with pytest.raises(WheelError) as caught:
        examine("sly==1.0")
    assert caught.value.code == Trouble.NO_WHEEL
    assert not ran.exists()


def test_what_is_not_there_is_named(make: Any) -> None:
    make("tiny", "1.0")
    with pytest.raises(WheelError) as caught:
        examine("tiny==9.9")
    assert caught.value.code == Trouble.NO_SUCH_VERSION


def test_an_index_that_is_away(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setattr(wheels, "PATIENCE", ("--retries", "1", "--timeout", "2"))
    with pytest.raises(WheelError) as caught:
        examine("tiny==1.0")
    assert caught.value.code == Trouble.INDEX_AWAY


@pytest.fixture
def yanking_index(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, bytes]]:
    """A simple index over HTTP whose one version was taken back by its author."""
    wheel = make("tiny", "1.0")
    link = f'<a href="/{wheel.name}" data-yanked="it deletes files">{wheel.name}</a>'
    pages = {"/simple/tiny/": link.encode(), f"/{wheel.name}": wheel.read_bytes()}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = pages.get(self.path)
            self.send_response(200 if body else 404)
            kind = "text/html" if self.path.endswith("/") else "application/octet-stream"
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    yield pages
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_version_that_was_taken_back_blocks(yanking_index: Any) -> None:
    made = examine("tiny==1.0")
    assert any("yanked" in words for words in made.blockers)


def test_other_bytes_than_the_approved_ones_are_not_built(
    yanking_index: dict[str, bytes], make: Any, tmp_path: Path
) -> None:
    approved = pin_of(tmp_path / "index/tiny-1.0-py3-none-any.whl")
    other = make("tiny", "1.0", {"tiny/__init__.py": "import os\n"})
    yanking_index[f"/{other.name}"] = other.read_bytes()
    into = tmp_path / "wheels"
    into.mkdir()
    with pytest.raises(WheelError) as caught:
        wheels.gather(Lock(pins=(approved,)), into)
    assert caught.value.code == Trouble.WRONG_HASH
    assert not list(into.iterdir())


def test_kept_wheels_need_no_index_and_damaged_ones_are_not_used(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make("tiny", "1.0")
    kept, pin = wheels.store(path), pin_of(path)
    path.unlink()
    into = tmp_path / "wheels"
    into.mkdir()
    assert wheels.gather(Lock(pins=(pin,)), into) == []
    kept.write_bytes(b"not it")
    assert wheels.stored(pin) is None


def test_nothing_that_starts_by_itself_or_from_a_shell_comes_in(make: Any, tmp_path: Path) -> None:
    files = {
        "loud/__init__.py": "A = 1\n",
        "loud.pth": "import sys; sys.stdout.write('started')\n",
        "loud-1.0.dist-info/entry_points.txt": "[console_scripts]\nloud = loud:main\n"
        "[pytest11]\nloud = loud\n",
        "loud-1.0.data/scripts/louder": "#!python\nprint('hi')\n",
    }
    path = make("loud", "1.0", files)
    made = examine("loud==1.0")
    assert any("loud.pth" in words for words in made.problems)
    site, into = tmp_path / "site", tmp_path / "wheels"
    site.mkdir()
    into.mkdir()
    given = Lock(pins=(pin_of(path),))
    wheels.gather(given, into)
    wheels.install(given, into, site)
    layout.tidy(site)
    left = sorted(str(p.relative_to(site)) for p in site.rglob("*") if p.is_file())
    assert left == [
        "loud-1.0.dist-info/METADATA",
        "loud-1.0.dist-info/RECORD",
        "loud-1.0.dist-info/WHEEL",
        "loud/__init__.py",
    ]
    assert "louder" not in (site / "loud-1.0.dist-info/RECORD").read_text()


def test_a_package_that_writes_over_another_is_not_installed(make: Any, tmp_path: Path) -> None:
    one = make("one", "1.0", {"shared.py": "A = 1\n", "one/__init__.py": ""})
    two = make("two", "1.0", {"shared.py": "A = 2\n", "two/__init__.py": ""})
    given = Lock(pins=(pin_of(one), pin_of(two)))
    into, site = tmp_path / "wheels", tmp_path / "site"
    into.mkdir()
    site.mkdir()
    wheels.gather(given, into)
    wheels.install(given, into, site)
    with pytest.raises(InfrastructureError, match=r"both bring shared\.py"):
        layout.tidy(site)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"sandbox/worker.py": ""}, "write over our own sandbox"),
        ({"random.py": ""}, "a name of the standard library"),
        ({"numpy/__init__.py": ""}, "which is numpy's"),
    ],
)
def test_names_of_others_block(make: Any, tmp_path: Path, files: Any, words: str) -> None:
    make("sly", "1.0", files)
    before = EMPTY.extended([Pin(name="numpy", version="2.0", hashes=("ab" * 32,))], {})
    made = depreq.request("sly==1.0", tmp_path / "index", now=NOW, scan=clean, lock=before)
    assert any(words in one for one in made.blockers), made.blockers


def test_a_name_like_another_s_is_said(make: Any, tmp_path: Path) -> None:
    make("nunpy", "1.0")
    before = EMPTY.extended([Pin(name="numpy", version="2.0", hashes=("ab" * 32,))], {})
    made = depreq.request("nunpy==1.0", tmp_path / "index", now=NOW, scan=clean, lock=before)
    assert any("close to numpy" in one for one in made.problems)


def test_a_file_outside_of_its_folder_is_no_wheel(make: Any, tmp_path: Path) -> None:
    make("sly", "1.0", {"../../evil.py": ""})
    with pytest.raises(RequestError, match="outside of its folder"):
        depreq.request("sly==1.0", tmp_path / "index", now=NOW, scan=clean, lock=EMPTY)


def test_another_hash_than_the_lock_s_for_a_package_that_is_there(
    make: Any, tmp_path: Path
) -> None:
    make("tiny", "1.0")
    before = EMPTY.extended([Pin(name="tiny", version="1.0", hashes=("ab" * 32,))], {})
    with pytest.raises(RequestError, match=r"other bytes for tiny==1\.0"):
        depreq.request("tiny==1.0", tmp_path / "index", now=NOW, scan=clean, lock=before)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"format":"escapement lock v1","modules":{},"packages":[]} x',
        b'{"format":"other","modules":{},"packages":[]}',
        b'{"format":"escapement lock v1","modules":{"os; x":["a"]},"packages":[]}',
        b'{"format":"escapement lock v1","modules":{},"packages":[{"name":"A","version":"1",'
        b'"hashes":["00"],"licence":""}]}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_what_is_no_lock(data: bytes) -> None:
    with pytest.raises(lock.LockError, match="no lock"):
        lock.parse(data)


def test_a_lock_is_the_same_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESCAPEMENT_VAR", str(tmp_path))
    made = EMPTY.extended(
        [Pin(name="b", version="1.0", hashes=("cd" * 32, "ab" * 32), licence="MIT")],
        {"b.c": ["z", "a"]},
    )
    assert lock.parse(made.to_bytes()) == made
    assert lock.site() is None
    lock.keep(made)
    assert lock.current() == made
    with lock.using(EMPTY):
        assert lock.current() == EMPTY
    assert lock.current() == made
    lock.forget()
    assert lock.current() == lock.seed()
