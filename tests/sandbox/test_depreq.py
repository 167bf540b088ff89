"""The record of a request for a package: made from wheels, running nothing of them."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sandbox import advisories, depreq, image, vulnerabilities, wheel_facts
from sandbox.__main__ import main
from sandbox.depreq import Request
from sandbox.vulnerabilities import Scan
from sandbox.wheel_facts import RequestError

NOW = datetime(2023, 8, 1, tzinfo=UTC)
FILE = Path(__file__).parent / "advisories/pypa-2024-10-10-reduced.json"
METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nLicense: MIT\n{more}"


def wheel(folder: Path, name: str, version: str, more: str = "", **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-{options.get('tags', 'py3-none-any')}.whl"
    text = METADATA.format(name=options.get("says", name), version=version, more=more)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}-{version}.dist-info/METADATA", text)
        archive.writestr(f"{name}/__init__.py", "raise SystemExit('it ran')")
        for extra in options.get("files", ()):
            archive.writestr(extra, "x")
    return path


def clean(lock: Sequence[str]) -> Scan:
    return Scan(lock=tuple(lock), source="snapshot", dated="2023-07-31T00:00:00Z")


def record(pin: str, folder: Path, scan: Any = clean) -> Request:
    return depreq.request(pin, folder, now=NOW, scan=scan)


def test_a_small_package_has_a_whole_record(tmp_path: Path) -> None:
    path = wheel(tmp_path / "w", "cma", "4.0.0", "Requires-Dist: numpy\nSummary: Evolution\n")
    made = record("CMA==4.0.0", tmp_path / "w")
    assert made.problems == ()
    assert (made.package, made.version, made.replaces, made.missing) == ("cma", "4.0.0", "", ())
    (one,) = made.wheels
    assert one.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (one.licence, one.summary, one.fits_image, one.native) == ("MIT", "Evolution", True, ())
    data = made.to_data()
    assert record("cma==4.0.0", path.parent).to_data() == data
    wheel(tmp_path / "w", "cma", "4.0.0", "Requires-Dist: numpy\nSummary: Evolved\n")
    assert record("cma==4.0.0", path.parent).to_data()["digest"] != data["digest"]


def test_what_speaks_against_it_is_said(tmp_path: Path) -> None:
    more = "Requires-Dist: xgboost>=1.0\nRequires-Dist: numpy<2\nRequires-Dist: x; extra == 'all'\n"
    files = ("odd/_core.so", "odd.pth")
    wheel(tmp_path / "w", "odd", "1.0", more, tags="cp27-cp27m-win32", files=files)
    wheel(tmp_path / "w", "odd", "1.0", more, files=files)
    made = record("odd==1.0", tmp_path / "w", lambda lock: Scan(lock=tuple(lock), problem="none"))
    assert made.missing == ("numpy<2", "xgboost>=1.0")
    assert [w.fits_image for w in made.wheels] == [False, True]
    assert made.wheels[0].native == ("odd/_core.so",)
    words = " ".join(made.problems)
    assert "xgboost" in words
    assert "NOT SCANNED" in words
    assert ".pth" in words


def test_a_vulnerable_version_is_found_by_the_real_audit(tmp_path: Path) -> None:
    advisories.store(FILE, into=tmp_path / "store", now=NOW)
    wheel(tmp_path / "w", "numpy", "1.16.0")

    def scan(lock: Sequence[str]) -> Scan:
        return vulnerabilities.current(lock, where=tmp_path / "store", setting="", now=NOW)

    made = record("numpy==1.16.0", tmp_path / "w", scan)
    pinned = dict(p.split("==") for p in image.pins())["numpy"]
    assert made.replaces == pinned
    assert any("PYSEC-2019-108" in p for p in made.problems)
    assert any("goes back" in p for p in made.problems)


@pytest.mark.parametrize(
    "pin",
    ["numpy", "numpy>=1", "numpy==1,!=2", "numpy==1.*", "a b==1", "", "--index-url=x", "x[y]==1"],
)
def test_no_request(pin: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="PACKAGE==VERSION"):
        record(pin, tmp_path)
    with pytest.raises(RequestError):
        depreq.examine(pin, now=NOW)


def test_wheels_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match="no wheel"):
        record("a==1", tmp_path)
    with pytest.raises(RequestError, match="no folder"):
        record("a==1", tmp_path / "none")
    path = wheel(tmp_path / "w", "a", "1")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(RequestError, match="cut off"):
        record("a==1", tmp_path / "w")
    wheel(tmp_path / "w", "a", "1", says="b")
    with pytest.raises(RequestError, match="says of itself"):
        record("a==1", tmp_path / "w")
    wheel(tmp_path / "w", "a", "1", files=["b-1.dist-info/METADATA"])
    with pytest.raises(RequestError, match="2 METADATA"):
        record("a==1", tmp_path / "w")
    wheel(tmp_path / "w", "a", "1", "Requires-Dist: ???\n")
    with pytest.raises(RequestError, match="nobody can read"):
        record("a==1", tmp_path / "w")
    wheel(tmp_path / "w", "a", "1")
    monkeypatch.setattr(wheel_facts, "MAX_METADATA_BYTES", 10)
    with pytest.raises(RequestError, match="bytes of METADATA"):
        record("a==1", tmp_path / "w")


def test_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ESCAPEMENT_ADVISORIES", str(tmp_path / "none"))
    wheel(tmp_path / "w", "cma", "4.0.0")
    assert main(["dependency", "cma==4.0.0", "--wheels", str(tmp_path / "w")]) == 1
    made = json.loads(capsys.readouterr().out)
    assert made["problems"] == ["NOT SCANNED for known vulnerabilities"]
    assert main(["dependency", "cma==5", "--wheels", str(tmp_path / "w")]) == 2
