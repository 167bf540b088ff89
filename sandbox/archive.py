"""An image as one file: layers and a description, of which every byte follows from the content.

An engine's own build stamps times and containers into an image, so that the same content has
another id each time. Here the layers are tars with fixed owners, times and order, the description
says no time, and the id is its SHA-256: the same inputs on the same base give the same id on any
machine. The format is that of `docker save` and `docker load`. Knows no engine.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox import rootfs
from sandbox.errors import InfrastructureError

NO_TIME = "1970-01-01T00:00:00Z"
PATH = "PATH=/usr/local/bin:/usr/bin:/bin"
MAX_DESCRIPTION_BYTES = 16 * 1024 * 1024
MAX_LAYERS = 120
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer as a tar of its own, or inside of another archive (`member`)."""

    digest: str  # of the uncompressed tar
    path: Path
    member: str = ""


@dataclass(frozen=True, kw_only=True)
class Base:
    """An image to build on: its layers and its description."""

    reference: str
    layers: tuple[Layer, ...]
    description: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Made:
    """An archive that was written, and the id that an engine gives to it."""

    name: str
    path: Path
    image_id: str


def layer(folder: Path, tar: Path, *, prefix: str = "") -> Layer:
    """A folder as a layer; `prefix` ends with a slash, and its folders are in it too."""
    rootfs.write_tar(folder, tar, prefix=prefix)
    with tar.open("rb") as file:
        return Layer(digest=hashlib.file_digest(file, "sha256").hexdigest(), path=tar)


def write(
    path: Path,
    *,
    name: str,
    base: Base | None,
    layers: Sequence[Layer],
    user: str,
    labels: Mapping[str, str],
) -> Made:
    """The archive, for `docker load`."""
    every = [*(base.layers if base else ()), *layers]
    description = json.dumps(
        _description(base, every, len(layers), user, labels), sort_keys=True, separators=(",", ":")
    ).encode()
    identity = hashlib.sha256(description).hexdigest()
    manifest = [
        {
            "Config": f"{identity}.json",
            "RepoTags": [name],
            "Layers": [f"{number:03}/layer.tar" for number in range(len(every))],
        }
    ]
    with tarfile.open(path, "w") as out:
        _add(out, "manifest.json", json.dumps(manifest).encode())
        _add(out, f"{identity}.json", description)
        for number, one in enumerate(every):
            _add_layer(out, f"{number:03}/layer.tar", one)
    return Made(name=name, path=path, image_id=f"sha256:{identity}")


def _description(
    base: Base | None, every: Sequence[Layer], ours: int, user: str, labels: Mapping[str, str]
) -> dict[str, Any]:
    known = dict(base.description) if base else {}
    config = dict(known.get("config") or {"Env": [PATH]})
    config |= {
        "User": user,
        "WorkingDir": "/",
        "Entrypoint": None,
        "Cmd": None,
        "Labels": {**(config.get("Labels") or {}), **labels},
    }
    machine = _MACHINES.get(platform.machine(), platform.machine())
    return {
        "architecture": known.get("architecture", machine),
        **({"variant": known["variant"]} if known.get("variant") else {}),
        "os": "linux",
        "created": NO_TIME,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{one.digest}" for one in every]},
        "history": [
            *known.get("history", []),
            *({"created": NO_TIME, "created_by": "python -m sandbox image"} for _ in range(ours)),
        ],
    }


def _add(out: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    out.addfile(info, io.BytesIO(data))


def _add_layer(out: tarfile.TarFile, name: str, one: Layer) -> None:
    info = tarfile.TarInfo(name)
    if not one.member:
        info.size = one.path.stat().st_size
        with one.path.open("rb") as file:
            out.addfile(info, file)
        return
    with tarfile.open(one.path) as source:
        member = source.getmember(one.member)
        data = source.extractfile(member)
        if data is None:
            raise InfrastructureError(f"{one.path} has no layer {one.member}: fetch it again.")
        info.size = member.size
        out.addfile(info, data)


# --- reading one ---


def read(path: Path, reference: str) -> Base:
    """An archive that an engine saved. Raises InfrastructureError where it is none."""
    try:
        with tarfile.open(path) as saved:
            (manifest,) = json.loads(_member(saved, "manifest.json"))
            description = json.loads(_member(saved, manifest["Config"]))
            places = list(manifest["Layers"])
            digests = [str(d).removeprefix("sha256:") for d in description["rootfs"]["diff_ids"]]
            if len(places) != len(digests) or len(places) > MAX_LAYERS:
                raise ValueError("its layers are not those of its description")
            layers = tuple(
                Layer(digest=digest, path=path, member=_followed(saved, place))
                for digest, place in zip(digests, places, strict=True)
            )
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError) as error:
        raise InfrastructureError(
            f"The engine's copy of {reference} can't be read: {error}"
        ) from error
    return Base(reference=reference, layers=layers, description=description)


def _member(saved: tarfile.TarFile, name: str) -> bytes:
    member = saved.getmember(name)
    if member.size > MAX_DESCRIPTION_BYTES:
        raise ValueError(f"{name} is too large")
    file = saved.extractfile(member)
    if file is None:
        raise ValueError(f"{name} is no file")
    return file.read()


def _followed(saved: tarfile.TarFile, name: str) -> str:
    """The member that holds the bytes: equal layers are links to the first."""
    member = saved.getmember(name)
    if member.issym():
        return os.path.normpath(os.path.join(os.path.dirname(name), member.linkname))
    return name
