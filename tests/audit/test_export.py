"""The evidence bundle: made by the command, verified by its own verify.py in a bare process."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from audit import onefile

from tests.audit.conftest import Site, build


def verify(folder: Path, *arguments: str, python: str = sys.executable) -> tuple[int, str]:
    """Run the bundle's own verify.py with nothing of ours around it."""
    done = subprocess.run(
        [python, "-I", "-B", str(folder / "verify.py"), *arguments],
        cwd="/",
        env={},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def exporting(told: Site, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The story's site, copied: exporting adds to the log."""
    folder = tmp_path_factory.mktemp("exporting")
    shutil.copytree(told.var, folder, dirs_exist_ok=True)
    return Site(folder)


@pytest.fixture(scope="module")
def archive(exporting: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("out") / "evidence.zip"
    out = exporting.run(
        *("manage.py", "export_evidence", "--out", str(path), "--by", "katherine"),
        *("--reason", "yearly audit"),
    )
    assert hashlib.sha256(path.read_bytes()).hexdigest() in out
    return path


@pytest.fixture
def bundle(archive: Path, tmp_path: Path) -> Path:
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_it_verifies_by_itself(bundle: Path, exporting: Site) -> None:
    code, out = verify(bundle)
    assert code == 0, out
    assert "compare it with yours" in out
    code, out = verify(bundle, "--public-key", str(exporting.public_key), "--json")
    assert code == 0, out
    assert json.loads(out)["key_pinned"] is True


WITHOUT_CRYPTOGRAPHY = """
import runpy, sys
sys.modules["cryptography"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_without_cryptography_it_says_so_and_is_not_ok(bundle: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", WITHOUT_CRYPTOGRAPHY, str(bundle / "verify.py")],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "NOT CHECKED" in done.stdout


def test_what_is_in_it(bundle: Path, exporting: Site) -> None:
    rows = list(csv.DictReader(io.StringIO((bundle / "changes/population.csv").read_text())))
    with sqlite3.connect(exporting.database) as connection:
        proposals = connection.execute("SELECT id, state, digest FROM proposals_proposal")
        stored = {f"proposal:{n}": (state, digest) for n, state, digest in proposals}
    assert {r["of"]: (r["state"], r["digest"]) for r in rows} == stored
    assert {"rejected", "failed", "refused", "live"} <= {r["state"] for r in rows}
    for row in rows:
        folder = bundle / "changes" / row["of"].partition(":")[2]
        source = (folder / "mechanism.py").read_bytes()
        assert hashlib.sha256(source).hexdigest() == row["digest"]
        for name in ("diff.patch", "transcript.json", "decision.json", "activations.json"):
            assert (folder / name).stat().st_size, name
    lines = (bundle / "audit/entries.jsonl").read_bytes().splitlines()
    last = json.loads(lines[-1])
    assert (last["verb"], last["actor"]["name"]) == ("audit.exported", "katherine")
    assert last["reason"] == "yearly audit"
    page = (bundle / "README.html").read_text()
    assert page.index("Exceptions (") < page.index("Population")
    assert "<script" not in page
    people = list(csv.DictReader(io.StringIO((bundle / "people/people.csv").read_text())))
    assert ("ada", "reviewer") in {(p["name"], p["groups"]) for p in people}


def test_the_export_is_on_the_log(archive: Path, exporting: Site) -> None:
    with sqlite3.connect(exporting.database) as connection:
        query = "SELECT body FROM audit_entry WHERE verb = 'audit.export_written'"
        bodies = [json.loads(body) for (body,) in connection.execute(query)]
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert digest in {b["data"]["sha256"] for b in bodies}
    assert exporting.verify()[0] == 0


def test_its_verifier_is_the_one_file_and_in_the_manifest(bundle: Path) -> None:
    ours = onefile.source().encode()
    assert (bundle / "verify.py").read_bytes() == ours
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["files"]["verify.py"] == hashlib.sha256(ours).hexdigest()


def edit(path: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    def change(bundle: Path) -> None:
        data = (bundle / path).read_bytes()
        assert old in data, path
        (bundle / path).write_bytes(data.replace(old, new))

    return change


def cut_tail(bundle: Path) -> None:
    path = bundle / "audit/entries.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-3]))


def without_a_proposal(bundle: Path) -> None:
    """Hide a rejected proposal from the population, and mend the manifest as far as one can."""
    path = bundle / "changes/population.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if ",rejected," not in line))
    remanifest(bundle)


def remanifest(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    for name in manifest["files"]:
        manifest["files"][name] = hashlib.sha256((bundle / name).read_bytes()).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (edit("audit/entries.jsonl", b'"demo"', b'"dem0"'), "edited: entry"),
        (cut_tail, "tail cut"),
        (edit("changes/1/mechanism.py", b"TENURE", b"TENURA"), "changes/1/mechanism.py"),
        (edit("changes/3/screening-3/report.json", b"failed", b"passed"), "screening-3/report"),
        (edit("changes/population.csv", b"rejected", b"approved"), "the log says 'rejected'"),
        (without_a_proposal, "is in the log, and has no row"),
        (without_a_proposal, "the manifest's signature does not hold"),
        (lambda b: (b / "changes/2/decision.json").unlink(), "decision.json is missing"),
        (lambda b: (b / "changes/9.txt").write_text("x"), "9.txt is not in the manifest"),
        (lambda b: [p.unlink() for p in (b / "policies").glob("*.yaml")], "not the file that the"),
        (lambda b: [p.unlink() for p in (b / "audit/checkpoints").iterdir()], "checkpoint"),
        (edit("audit/head.json", b'"size": ', b'"size": 1'), "bad signature"),
        (edit("people/people.csv", b"auditor", b"reviewer"), "people/people.csv was changed"),
    ],
)
def test_a_bundle_that_was_tampered_with_is_caught(
    bundle: Path, change: Callable[[Path], None], words: str
) -> None:
    change(bundle)
    code, out = verify(bundle)
    assert code == 1, out
    assert words in out


def test_a_bundle_of_somebody_else_is_caught_by_the_pinned_key(
    bundle: Path, tmp_path: Path
) -> None:
    key = tmp_path / "mine.pub"
    key.write_text("ab" * 32)
    code, out = verify(bundle, "--public-key", str(key))
    assert (code, "wrong key" in out) == (1, True)


@pytest.mark.parametrize("name", ["manifest.json", "audit/head.json", "changes/population.csv"])
def test_half_a_bundle_could_not_be_looked_at(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    code, out = verify(bundle)
    assert (code, "could not look" in out) == (2, True)


def test_an_export_that_can_not_be_written_is_refused(exporting: Site, archive: Path) -> None:
    for path, words in ((archive, "exists"), (archive.parent / "no" / "x.zip", "no folder")):
        process = exporting.python("manage.py", "export_evidence", "--out", str(path))
        _, err = process.communicate(timeout=240)
        assert process.returncode == 1
        assert words in err
    before = archive.read_bytes()
    process = exporting.python(
        *("manage.py", "export_evidence", "--out", f"{archive}.2", "--by", "nobody")
    )
    assert "no active account" in process.communicate(timeout=240)[1]
    assert archive.read_bytes() == before


def test_an_export_without_its_files_fails_and_is_on_the_log(told: Site, tmp_path: Path) -> None:
    broken = Site(tmp_path / "var")
    shutil.copytree(told.var, broken.var)
    shutil.rmtree(broken.var / "mechanisms.git")
    out = tmp_path / "evidence.zip"
    process = broken.python("manage.py", "export_evidence", "--out", str(out))
    _, err = process.communicate(timeout=240)
    assert (process.returncode, out.exists(), "can't be read" in err) == (1, False, True), err
    with sqlite3.connect(broken.database) as connection:
        query = "SELECT verb FROM audit_entry ORDER BY seq DESC LIMIT 2"
        verbs = [verb for (verb,) in connection.execute(query)]
    assert verbs == ["audit.export_failed", "audit.exported"]


def test_the_same_story_holds_on_postgres(
    postgres_site: Site, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    url = postgres_site.url.rpartition("/")[0] + "/story"
    with psycopg.connect(postgres_site.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE story")
    site = build(tmp_path_factory.mktemp("story"), url)
    site.run("tests/web/factory.py")
    out = tmp_path / "evidence.zip"
    site.run("manage.py", "export_evidence", "--out", str(out))
    with zipfile.ZipFile(out) as packed:
        packed.extractall(tmp_path / "bundle")
    assert verify(tmp_path / "bundle")[0] == 0
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE proposals_proposal SET state = 'live' WHERE state = 'rejected'")
    code, text = site.verify()
    assert (code, "the log says 'rejected'" in text) == (1, True), text
