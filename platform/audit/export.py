"""The evidence bundle: one ZIP that an auditor verifies offline, without trusting us.

The export is an act of its own: its entry is written first, so the bundle contains it, and the
bundle's digest follows in a second entry. What other apps have comes from `audit.evidence`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.db import DEFAULT_DB_ALIAS, transaction
from django.utils import timezone

from audit import canonical, cover, keys, log, onefile, query, source, verifier
from audit.actors import Actor
from audit.evidence import Provider, providers
from audit.head import AuditError

MAX_FILE_BYTES = 256 * 1024 * 1024


class ExportFailed(AuditError):
    """No bundle was written; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What was written."""

    path: Path
    digest: str
    size_bytes: int
    entry: int  # seq of `audit.exported`, the last entry in the bundle
    files: int
    proposals: int


def write(path: Path, *, actor: Actor, reason: str = "") -> Bundle:
    """Write the bundle to `path`, whole or not at all. Raises ExportFailed."""
    if not providers():
        raise ExportFailed("no app gives its evidence: a bundle without changes proves nothing")
    if path.exists():
        raise ExportFailed(f"{path} exists: name a new file")
    with transaction.atomic():
        entry = log.append(
            actor=actor,
            verb="audit.exported",
            subject="audit",
            reason=reason,
            data={"providers": [p.name for p in providers()]},
        )
    try:
        files, proposals = _collect(actor)
        digest, size = _write(path, files)
    except Exception as error:
        with transaction.atomic():
            data = {"exported": entry.seq, "error": canonical.text(str(error))[:2000]}
            log.append(actor=actor, verb="audit.export_failed", subject="audit", data=data)
        raise ExportFailed(f"no bundle was written: {error}") from error
    data = {"exported": entry.seq, "sha256": digest, "bytes": size}
    try:
        with transaction.atomic():
            log.append(actor=actor, verb="audit.export_written", subject="audit", data=data)
    except BaseException:
        path.unlink(missing_ok=True)  # no entry, no act
        raise
    return Bundle(
        path=path,
        digest=digest,
        size_bytes=size,
        entry=entry.seq,
        files=len(files),
        proposals=proposals,
    )


def _collect(actor: Actor) -> tuple[dict[str, bytes], int]:
    """All files of the bundle, from one consistent view."""
    using = DEFAULT_DB_ALIAS
    files: dict[str, bytes] = {}
    with source.snapshot(using):
        key = keys.public_key_hex()
        notes = source.notes(using)
        head = source.head(using)
        rows = list(source.entries(using))
        result = verifier.verify(entries=rows, head=head, notes=notes, key=key)
        population, exceptions = [], []
        for provider in providers():
            result.problems += source.compared(provider, result, using)
            population += [dict(row) for row in provider.population(using)]
            exceptions += list(provider.exceptions(using))
            _add(files, _files(provider, using))
        _add(files, [("people/people.csv", _people(using))])
    files["audit/entries.jsonl"] = b"".join(body.encode() + b"\n" for body, _ in rows)
    files["audit/head.json"] = _pretty(head)
    for note in notes:
        size = verifier.parse_note(note).size
        files[f"audit/checkpoints/{size:08d}.txt"] = note.encode()
    files["changes/population.csv"] = _table(population, first=verifier.POPULATION)
    files["verify.py"] = onefile.source().encode()
    files["platform.pub"] = key.encode() + b"\n"
    made_at = canonical.utc(timezone.now())
    page = cover.page(
        made_at=made_at,
        made_by=str(actor),
        result=result,
        population=population,
        exceptions=exceptions,
        newest=verifier.parse_note(notes[-1]),
    )
    files["README.html"] = page.encode()
    manifest = {
        "v": 1,
        "made_at": made_at,
        "made_by": canonical.plain(actor),
        "entries": result.entries,
        "head": result.head,
        "key": key,
        "problems": [str(p) for p in result.problems],
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    raw = _pretty(manifest)
    files["manifest.json"] = raw
    files["manifest.sig"] = keys.sign(verifier.MANIFEST_PREFIX + raw).encode() + b"\n"
    return files, len(population)


def _files(provider: Provider, using: str) -> Iterator[tuple[str, bytes]]:
    for name, data in provider.files(using):
        if len(data) > MAX_FILE_BYTES:
            raise ExportFailed(f"{name} is larger than {MAX_FILE_BYTES} bytes")
        yield name, data


def _add(files: dict[str, bytes], more: Iterable[tuple[str, bytes]]) -> None:
    for name, data in more:
        parts = name.split("/")
        if name in files or any(p in {"", ".", ".."} or "\\" in p for p in parts):
            raise ExportFailed(f"{name!r} is no new file of a bundle")
        files[name] = data


def _people(using: str) -> bytes:
    """Every account: who could do what when this was exported."""
    people = get_user_model()._default_manager.using(using).prefetch_related("groups")
    rows = [
        {
            "id": str(person.pk),
            "name": person.get_username(),
            "groups": " ".join(sorted(g.name for g in person.groups.all())),
            "active": person.is_active,
            "superuser": person.is_superuser,
            "joined": canonical.utc(person.date_joined),
            "last_login": canonical.utc(person.last_login) if person.last_login else "",
        }
        for person in people.order_by("pk")
    ]
    return _table(rows, first=("id", "name", "groups"))


def _table(rows: Iterable[Mapping[str, Any]], *, first: tuple[str, ...]) -> bytes:
    """Rows as CSV with these columns first."""
    rows = list(rows)
    names = dict.fromkeys([*first, *(name for row in rows for name in row)])
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        cells = ("" if row.get(n) is None else str(row[n]) for n in names)
        writer.writerow([query.safe_cell(cell) for cell in cells])
    return out.getvalue().encode()


def _pretty(value: Any) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _write(path: Path, files: Mapping[str, bytes]) -> tuple[str, int]:
    """The ZIP, put in place when it is whole, for its owner's eyes."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as raw:
            with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as bundle:
                for entry in sorted(files):
                    bundle.writestr(entry, files[entry])
            raw.flush()
            os.fsync(raw.fileno())
        data = Path(name).read_bytes()
        os.link(name, path)  # refuses to replace what somebody else has put there
    finally:
        os.unlink(name)
    return hashlib.sha256(data).hexdigest(), len(data)
