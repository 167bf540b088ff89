"""Two images compared: what went into them, how they are described, and each file of theirs.

The same inputs on the same base give the same id; where two ids differ, this says what of it is
different: names, kinds, modes, owners, times, sizes, hashes. Knows no engine.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sandbox.archive import Base, Layer
from sandbox.errors import InfrastructureError

MAX_LINES = 200
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
INPUTS = "escapement.inputs"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One path of an image."""

    kind: str
    mode: str
    owner: str
    time: int
    size: int
    content: str  # SHA-256 of a file, the target of a link


def differences(one: Base, two: Base) -> list[str]:
    """What is different, a line each, the cause before the effect; empty: nothing is."""
    lines = [*_inputs(one, two), *_description(one.description, two.description)]
    if [x.digest for x in one.layers] != [x.digest for x in two.layers]:
        lines += _files(contents(one), contents(two))
    if len(lines) > MAX_LINES:
        lines = [*lines[:MAX_LINES], f"... and {len(lines) - MAX_LINES} more"]
    return lines


def contents(image: Base) -> dict[str, Entry]:
    """Every path of an image, its layers laid over each other."""
    found: dict[str, Entry] = {}
    try:
        for layer in image.layers:
            for name, entry in _layer(layer):
                folder, _, last = name.rpartition("/")
                if last == _OPAQUE:
                    _forget(found, folder, itself=False)
                elif last.startswith(_WHITEOUT):
                    gone = f"{folder}/{last.removeprefix(_WHITEOUT)}".lstrip("/")
                    _forget(found, gone, itself=True)
                else:
                    found[name] = entry
    except (OSError, tarfile.TarError) as error:
        raise InfrastructureError(f"{image.reference} can't be read: {error}") from error
    return found


def _forget(found: dict[str, Entry], folder: str, *, itself: bool) -> None:
    for name in [n for n in found if n.startswith(f"{folder}/") or (itself and n == folder)]:
        del found[name]


def _layer(layer: Layer) -> Iterator[tuple[str, Entry]]:
    if not layer.member:
        with tarfile.open(layer.path) as tar:
            yield from _entries(tar)
        return
    with tarfile.open(layer.path) as outer:
        data = outer.extractfile(layer.member)
        if data is None:
            raise InfrastructureError(f"{layer.path} has no layer {layer.member}.")
        with tarfile.open(fileobj=data) as tar:
            yield from _entries(tar)


def _entries(tar: tarfile.TarFile) -> Iterator[tuple[str, Entry]]:
    for member in tar:
        content = member.linkname
        if member.isreg() and (file := tar.extractfile(member)) is not None:
            content = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        kind = "folder" if member.isdir() else "link" if member.issym() else "file"
        yield (
            member.name.removeprefix("./").rstrip("/"),
            Entry(
                kind=kind,
                mode=oct(member.mode),
                owner=f"{member.uid}:{member.gid}",
                time=int(member.mtime),
                size=member.size,
                content=content,
            ),
        )


def _inputs(one: Base, two: Base) -> Iterator[str]:
    """What each says that it was made of."""
    before, after = (_stated(image) for image in (one, two))
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield f"input {name}: {_short(before.get(name))} and {_short(after.get(name))}"


def _stated(image: Base) -> dict[str, str]:
    labels = image.description.get("config", {}).get("Labels") or {}
    try:
        stated = json.loads(labels.get(INPUTS, "{}"))
    except ValueError:
        return {"(unreadable)": ""}
    return stated if isinstance(stated, dict) else {}


def _description(one: Mapping[str, Any], two: Mapping[str, Any]) -> Iterator[str]:
    """Configuration, times and history, the labels of the inputs left out: they are told above."""
    for path, before, after in _walk("", one, two):
        if path not in {f"config.Labels.{INPUTS}", "rootfs.diff_ids"}:
            yield f"description {path}: {_short(before)} and {_short(after)}"


def _walk(path: str, one: Any, two: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(one, dict) and isinstance(two, dict):
        for name in sorted(one.keys() | two.keys()):
            yield from _walk(f"{path}.{name}".lstrip("."), one.get(name), two.get(name))
    elif one != two:
        yield path, one, two


def _files(one: Mapping[str, Entry], two: Mapping[str, Entry]) -> Iterator[str]:
    for name in sorted(one.keys() | two.keys()):
        before, after = one.get(name), two.get(name)
        if before is None or after is None:
            yield f"file {name}: only in the {'second' if before is None else 'first'}"
            continue
        mine, others = asdict(before), asdict(after)
        told = [
            f"{key} {_short(mine[key])} and {_short(others[key])}"
            for key in mine
            if mine[key] != others[key]
        ]
        if told:
            yield f"file {name}: {', '.join(told)}"


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
