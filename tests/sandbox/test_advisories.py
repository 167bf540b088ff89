"""Snapshots of advisories: what is taken, what is refused by name, and what a version is told."""

from __future__ import annotations

import gzip
import json
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import advisories
from sandbox.__main__ import main
from sandbox.advisories import Advisories, Age, affects
from sandbox.advisory_files import SnapshotError, SnapshotProblem, read_records

FILE = Path(__file__).parent / "advisories/pypa-2024-10-10-reduced.json"
NOW = datetime(2024, 10, 20, tzinfo=UTC)
RECORD = {
    "id": "X-1",
    "modified": "2024-10-01T00:00:00.5Z",
    "affected": [{"package": {"ecosystem": "PyPI", "name": "Some_Pack"}, "versions": ["1.0"]}],
}


def put(path: Path, data: Any) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return path


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def known(where: Path) -> Advisories:
    snapshot = advisories.current(where)
    assert snapshot is not None
    return advisories.load(where, snapshot)


def test_every_form_gives_the_same_snapshot(tmp_path: Path) -> None:
    plain = advisories.store(FILE, into=tmp_path / "a", now=NOW)
    packed = put(tmp_path / "any-name", gzip.compress(FILE.read_bytes()))
    wrapped = put(tmp_path / "w.json", {"vulns": json.loads(FILE.read_bytes())})
    single = {f"{r['id']}.json": json.dumps(r).encode() for r in json.loads(FILE.read_bytes())}
    archive = zipped(tmp_path / "all.zip", single)
    for index, file in enumerate((packed, wrapped, archive)):
        snapshot = advisories.store(file, into=tmp_path / f"b{index}", now=NOW)
        assert snapshot.digest == plain.digest
    assert plain.packages == 5
    assert plain.advisories == len(single) - 1  # one is withdrawn
    assert [r["id"] for r in known(tmp_path / "a").of("NumPy", "1.16.0")] == [
        "PYSEC-2019-108",
        "PYSEC-2021-856",
        "PYSEC-2021-857",
    ]
    assert known(tmp_path / "a").of("numpy", "2.4.6") == []


BROKEN = [
    (b"", SnapshotProblem.NOT_JSON),
    (b"<html>not found</html>", SnapshotProblem.NOT_JSON),
    (FILE.read_bytes()[:5000], SnapshotProblem.TRUNCATED),
    (gzip.compress(FILE.read_bytes(), mtime=0)[:-20], SnapshotProblem.TRUNCATED),
    (gzip.compress(b"[1]", mtime=0)[:12], SnapshotProblem.TRUNCATED),
    (b"\x1f\x8b\x08\x00garbage-garbage", SnapshotProblem.TRUNCATED),
    (b"PK\x03\x04 and nothing else", SnapshotProblem.TRUNCATED),
    (b"\xff\xfe[]", SnapshotProblem.NOT_JSON),
    (b"[" * 200_000, SnapshotProblem.NOT_JSON),
    (b"[]", SnapshotProblem.EMPTY),
    (b'{"vulns": []}', SnapshotProblem.EMPTY),
    (b"3", SnapshotProblem.WRONG_SHAPE),
    (b'{"message": "rate limit"}', SnapshotProblem.WRONG_SHAPE),
    ([RECORD, "x"], SnapshotProblem.WRONG_SHAPE),
    ([{**RECORD, "schema_version": "2.0.0"}], SnapshotProblem.WRONG_SHAPE),
    ([{k: v for k, v in RECORD.items() if k != "affected"}], SnapshotProblem.WRONG_SHAPE),
    ([{**RECORD, "affected": [{"versions": ["1"]}]}], SnapshotProblem.WRONG_SHAPE),
    ([{**RECORD, "modified": "yesterday"}], SnapshotProblem.WRONG_SHAPE),
    ([{**RECORD, "modified": "2024-99-01T00:00:00Z"}], SnapshotProblem.WRONG_SHAPE),
    ([{**RECORD, "modified": "2099-01-01T00:00:00Z"}], SnapshotProblem.FUTURE),
    ([{**RECORD, "withdrawn": "2024-10-02T00:00:00Z"}], SnapshotProblem.EMPTY),
    (
        [{**RECORD, "affected": [{"package": {"ecosystem": "npm", "name": "x"}}]}],
        SnapshotProblem.EMPTY,
    ),
]


@pytest.mark.parametrize(("data", "problem"), BROKEN)
def test_broken_snapshots_are_named_and_leave_the_old_one(
    data: Any, problem: SnapshotProblem, tmp_path: Path
) -> None:
    where = tmp_path / "store"
    before = advisories.store(FILE, into=where, now=NOW)
    with pytest.raises(SnapshotError) as refused:
        advisories.store(put(tmp_path / "new", data), into=where, now=NOW)
    assert refused.value.code is problem
    assert "new" in str(refused.value)
    assert advisories.current(where) == before


def test_broken_archives(tmp_path: Path) -> None:
    good = json.dumps(RECORD).encode()
    odd = zipped(tmp_path / "odd.zip", {"a.json": good, "b.yaml": b"x"})
    whole = zipped(tmp_path / "ok.zip", {"a.json": good, "b.json": good})
    cut = put(tmp_path / "cut.zip", whole.read_bytes()[:-30])
    damaged = put(
        tmp_path / "bad.zip", whole.read_bytes().replace(b"\x00\x00\x08\x00", b"\x01" * 4)
    )
    for file, problem in (
        (odd, SnapshotProblem.WRONG_SHAPE),
        (cut, SnapshotProblem.TRUNCATED),
        (damaged, SnapshotProblem.TRUNCATED),
        (tmp_path / "none", SnapshotProblem.UNREADABLE),
        (tmp_path, SnapshotProblem.UNREADABLE),
    ):
        with pytest.raises(SnapshotError) as refused:
            list(read_records(file))
        assert refused.value.code is problem, file


def test_a_bomb_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.advisory_files.MAX_CONTENT_BYTES", 1_000_000)
    bomb = b" " * 5_000_000
    for file in (
        put(tmp_path / "bomb.gz", gzip.compress(bomb)),
        zipped(tmp_path / "bomb.zip", {"a.json": bomb}),
    ):
        with pytest.raises(SnapshotError) as refused:
            list(read_records(file))
        assert refused.value.code is SnapshotProblem.TOO_LARGE


def test_age_is_that_of_the_newest_advisory(tmp_path: Path) -> None:
    snapshot = advisories.store(FILE, into=tmp_path, now=NOW)
    at = advisories.parse_time(snapshot.dated)
    assert snapshot.age(at + timedelta(days=advisories.STALE_DAYS)) is Age.FRESH
    assert snapshot.age(at + timedelta(days=advisories.STALE_DAYS + 1)) is Age.STALE
    assert snapshot.age_days(at + timedelta(days=770)) == 770


def test_going_back_is_refused_unless_meant(tmp_path: Path) -> None:
    newer = put(tmp_path / "newer.json", [RECORD])
    older = put(tmp_path / "older.json", [{**RECORD, "modified": "2020-01-01T00:00:00Z"}])
    where = tmp_path / "store"
    advisories.store(newer, into=where, now=NOW)
    with pytest.raises(SnapshotError) as refused:
        advisories.store(older, into=where, now=NOW)
    assert refused.value.code is SnapshotProblem.OLDER
    assert advisories.store(older, into=where, now=NOW, older=True).dated.startswith("2020")


def test_damage_in_the_store_is_seen(tmp_path: Path) -> None:
    snapshot = advisories.store(FILE, into=tmp_path, now=NOW)
    path = tmp_path / f"{snapshot.digest}.json.gz"
    for data in (gzip.compress(b"[]"), b"", path.read_bytes()[:-9]):
        path.write_bytes(data)
        with pytest.raises(SnapshotError) as refused:
            advisories.load(tmp_path, snapshot)
        assert refused.value.code is SnapshotProblem.DAMAGED
    (tmp_path / advisories.META).write_text('{"digest": 1}')
    with pytest.raises(SnapshotError):
        advisories.current(tmp_path)
    assert advisories.store(FILE, into=tmp_path, now=NOW) == snapshot  # mended by storing again


def affected(*events: tuple[str, str], versions: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"name": "x", "versions": versions, "ranges": [events] if events else []}


@pytest.mark.parametrize(
    ("data", "version", "expected"),
    [
        (affected(("introduced", "0"), ("fixed", "1.2")), "1.1.9", True),
        (affected(("introduced", "0"), ("fixed", "1.2")), "1.2", False),
        (affected(("introduced", "0"), ("fixed", "1.2")), "1.2rc1", True),
        (affected(("introduced", "0"), ("fixed", "1.2")), "0.0.dev1", True),
        (affected(("introduced", "0"), ("last_affected", "1.2")), "1.2", True),
        (affected(("introduced", "0"), ("last_affected", "1.2")), "1.2.post1", False),
        (affected(("fixed", "2"), ("introduced", "1"), ("introduced", "3")), "2.5", False),
        (affected(("fixed", "2"), ("introduced", "1"), ("introduced", "3")), "3.1", True),
        (affected(versions=("1.0", "dev-r44")), "1", True),
        (affected(versions=("1.0", "dev-r44")), "1.1", False),
        (affected(), "1", True),  # names no version: all of them
        (affected(("introduced", "0"), ("fixed", "soon")), "1", True),
        (affected(versions=("1.0",)), "not a version", True),
    ],
)
def test_what_is_affected(data: dict[str, Any], version: str, expected: bool) -> None:
    assert affects(data, version) is expected


VERSIONS = st.tuples(st.integers(0, 4), st.integers(0, 4)).map(lambda v: f"{v[0]}.{v[1]}")


@given(VERSIONS, VERSIONS, VERSIONS)
def test_a_range_is_an_interval_whatever_the_order(low: str, high: str, mine: str) -> None:
    def number(version: str) -> tuple[int, ...]:
        return tuple(map(int, version.split(".")))

    events = [("introduced", low), ("fixed", high)]
    if low != high:
        inside = affects(affected(*events), mine)
        assert inside is affects(affected(*reversed(events)), mine)
        if number(low) < number(high):
            assert inside is (number(low) <= number(mine) < number(high))


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["id", "modified", "affected", "vulns", "package"]), inner
            )
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_file_is_taken_or_refused_by_name(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        with pytest.raises(SnapshotError):
            advisories.store(put(Path(folder, "x"), data), into=Path(folder, "s"), now=NOW)
        assert not Path(folder, "s").exists()


def test_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ESCAPEMENT_ADVISORIES", str(tmp_path / "store"))
    assert main(["advisories"]) == 2
    assert "no snapshot" in capsys.readouterr().out
    assert main(["advisories", str(put(tmp_path / "bad", b"{"))]) == 2
    assert "cut off" in capsys.readouterr().err
    assert main(["advisories", str(FILE)]) == 2  # stored and scanned, but years old
    shown = capsys.readouterr().out
    assert "2023-07-19" in shown
    assert "days old" in shown
    assert "numpy" in shown
