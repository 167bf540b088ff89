"""An unpacked evidence bundle: its files, its log, and what the files say of the log."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from audit.verifier.operators import signed_operators
from audit.verifier.result import Kind, Problem, Result
from audit.verifier.rules import compare_rows, verify
from audit.verifier.signing import sha256, signature_holds

MANIFEST_PREFIX = b"escapement evidence manifest v1\n"
# What population.csv must repeat of the log's facts; it has more columns for people.
POPULATION = ("of", "name", "state", "target", "requester", "digest", "commit", "tree")
UNLISTED = {"manifest.json", "manifest.sig"}


class Unreadable(Exception):
    """The bundle can't be looked at."""


def verify_bundle(folder: Path, *, key: str = "") -> Result:
    """Verify an unpacked evidence bundle: its files, its log, and what the files say of the log."""
    try:
        raw = (folder / "manifest.json").read_bytes()
        manifest = json.loads(raw)
        files, stated = dict(manifest["files"]), str(manifest["key"])
        signature = (folder / "manifest.sig").read_text().strip()
        head = json.loads((folder / "audit/head.json").read_bytes())
        lines = (folder / "audit/entries.jsonl").read_bytes().splitlines()
        notes = [p.read_text("utf-8") for p in sorted((folder / "audit/checkpoints").glob("*.txt"))]
        table = csv.DictReader(io.StringIO((folder / "changes/population.csv").read_text("utf-8")))
        population = [{name: row[name] for name in POPULATION} for row in table]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unreadable(f"{folder} is no whole evidence bundle: {error}") from error
    nothing: Mapping[str, Any] = {}
    entries = [(line.decode("utf-8", "replace"), nothing) for line in lines]
    result = verify(entries=entries, head=head, notes=notes, key=key or stated)
    result.pinned = bool(key)
    held = signature_holds(result.key, MANIFEST_PREFIX + raw, signature)
    if held is None:
        result.signatures = "not checked"
    elif not held:
        kind = Kind.WRONG_KEY if stated != result.key else Kind.BAD_SIGNATURE
        result.problems.append(
            Problem(kind=kind, seq=None, message="the manifest's signature does not hold")
        )
    result.problems += _listed(folder, files)
    result.problems += compare_rows(result.facts, population, kinds=["proposal"])
    result.problems += _contents(folder, result.facts)
    result.problems += signed_operators(folder, result.facts, key=result.key)
    return result


def _listed(folder: Path, files: Mapping[str, str]) -> Iterator[Problem]:
    """Each file against the manifest, both ways."""
    there = {
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if not p.is_dir() and "__pycache__" not in p.parts
    }
    for name in sorted(there - set(files) - UNLISTED):
        yield Problem(kind=Kind.FILE, seq=None, message=f"{name} is not in the manifest")
    for name, digest in sorted(files.items()):
        if name not in there:
            yield Problem(kind=Kind.FILE, seq=None, message=f"{name} is missing")
        elif sha256((folder / name).read_bytes()) != digest:
            yield Problem(kind=Kind.FILE, seq=None, message=f"{name} was changed")


def _contents(folder: Path, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """The files that the log names by digest: each policy, mechanism, report, record and lock."""
    for of, known in facts.items():
        what, _, name = of.partition(":")
        if what == "policy":
            path, digest = f"policies/{name}.yaml", name
        elif what == "proposal":
            path, digest = f"changes/{name}/mechanism.py", str(known.get("digest"))
        elif what == "screening" and known.get("report"):
            path = f"changes/{known['proposal']}/screening-{name}/report.json"
            digest = str(known["report"])
        elif what == "lock":
            path, digest = f"packages/locks/{name}/lock.json", str(known.get("lock"))
        else:
            continue
        try:
            held = sha256((folder / path).read_bytes()) == digest
        except OSError:
            held = False
        if not held:
            message = f"{path} is not the file that the log names"
            yield Problem(kind=Kind.FILE, seq=None, message=message)
