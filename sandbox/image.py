"""The sandbox image: what is in it, its name by content, and how it is made.

The tag is the hash of every input, so a changed worker means a new image and an unchanged one is
found at once; the id is the hash of the result, the same wherever the same inputs and base are.
Packages are wheels with the hashes of the lock in force (`sandbox.lock`); the base comes from a
registry where one answers, else from the host's own Python. Nothing here knows Docker.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandbox import archive, layout, rootfs
from sandbox import lock as locks
from sandbox.errors import ImageMissing, InfrastructureError
from sandbox.lock import Lock, Pin

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = "escapement-sandbox"
REGISTRY_BASE = "python:3.11-slim"
USER = "64000:64000"
LABEL = "escapement.image"
OURS = ("__init__", "mechanism", "protocol", "worker", "selfreport", "testrun", "testing")
# What decides how the parts are put together.
MAKERS = ("rootfs", "layout", "archive")
FOR_MECHANISMS = ("numpy", "scipy", "scikit-learn", "optuna", "cmaes")
FOR_TESTS = ("pytest",)
# What those import, and no more: optuna's databases and migrations are left out.
_IMPORTED = (
    *("joblib", "cloudpickle", "threadpoolctl", "narwhals", "colorlog", "tqdm"),
    *("iniconfig", "packaging", "pluggy", "pygments"),
)
PACKAGES = (*FOR_MECHANISMS, *FOR_TESTS, *_IMPORTED)

Progress = Callable[[str], None]


def digest(data: bytes) -> str:
    """SHA-256 of `data` in hex."""
    return hashlib.sha256(data).hexdigest()


def inputs() -> dict[str, bytes]:
    """Everything that decides what is in the image, by name; the base image beside it."""
    names = [*OURS, *MAKERS]
    found = {f"sandbox/{name}.py": _read(ROOT / "sandbox" / f"{name}.py") for name in names}
    found["packages"] = locks.current().packages()
    found["python"] = sys.version.encode()
    found["base"] = REGISTRY_BASE.encode()
    return found


def tag() -> str:
    """The image's name: the hash of all inputs."""
    whole = hashlib.sha256()
    for name, data in sorted(inputs().items()):
        whole.update(f"{name} {digest(data)}\n".encode())
    return f"{REPOSITORY}:{whole.hexdigest()[:16]}"


def pins() -> list[str]:
    """`name==version` of every package in the image."""
    return locks.current().lines()


def seed_lock() -> Lock:
    """The lock of a new installation: PACKAGES by constraints.txt, with the hashes of lock.txt."""
    known = {}
    for line in _read(ROOT / "constraints.txt").decode().splitlines():
        name, _, version = line.partition("==")
        known[name.strip().lower()] = version.strip()
    if missing := [name for name in PACKAGES if name not in known]:
        raise InfrastructureError(f"constraints.txt does not pin {', '.join(missing)}.")
    text = _read(ROOT / "sandbox/lock.txt").decode()
    hashes = {
        line: tuple(sorted(re.findall(r"--hash=sha256:([0-9a-f]{64})", rest)))
        for line, rest in re.findall(
            r"^(\S+==\S+)((?:[^\S\n]*\\\n[^\S\n]+--hash=\S+)+)", text, re.M
        )
    }
    found = []
    for name in sorted(PACKAGES):
        line = f"{name}=={known[name]}"
        if line not in hashes:
            raise InfrastructureError(
                f"sandbox/lock.txt has no hashes of {line}: make it again as its head says."
            )
        found.append(Pin(name=name, version=known[name], hashes=hashes[line]))
    return Lock(pins=tuple(found))


def current_image(client: Any) -> str:
    """The id of the image for these inputs; InfrastructureError with the fix if there is none."""
    from sandbox.backends import engine  # noqa: PLC0415 - backends import this module

    found = engine.find_image(client, tag())
    if found is None:
        raise ImageMissing(
            f"The sandbox image {tag()} is not there: it was never built, or it was removed. "
            "Run: python -m sandbox image"
        )
    return found


def ensure_image(progress: Progress) -> str:
    """The id of the image for these inputs, built now if it is missing (a minute at most)."""
    from sandbox.backends import engine  # noqa: PLC0415 - backends import this module

    client = engine.connect()
    name = tag()
    if found := engine.find_image(client, name):
        progress(f"the sandbox image {name} is there")
        return found
    with alone(progress), tempfile.TemporaryDirectory(prefix="escapement-image-") as folder:
        if found := engine.find_image(client, name):
            progress(f"the sandbox image {name} was built by another process")
            return found
        return _load(client, make(client, Path(folder), progress), progress)


def make(client: Any, folder: Path, progress: Progress) -> archive.Made:
    """The image as an archive in `folder`, given to no engine."""
    from sandbox.backends import images  # noqa: PLC0415 - backends import this module

    name, lock = tag(), locks.current()
    progress(f"building {name}")
    site = folder / "site"
    site.mkdir(parents=True)
    layout.fill_site(site, lock, progress)
    layers = []
    base: archive.Base | None = images.base(client, REGISTRY_BASE, folder / "base", progress)
    if base is None:
        progress(f"BUILDING WITHOUT A REGISTRY: the base is this machine's own {sys.executable}")
        root = folder / "root"
        rootfs.build(root, site)
        layout.compile_folder(root)
        layers.append(archive.layer(root, folder / "root.tar"))
    progress("compiling and packing")
    layout.compile_folder(site)
    layers.append(archive.layer(site, folder / "site.tar", prefix=layout.PLACE))
    described = {n: digest(data) for n, data in sorted(inputs().items())}
    return archive.write(
        folder / "image.tar",
        name=name,
        base=base,
        layers=layers,
        user=USER,
        labels={
            LABEL: "1",
            "escapement.base": base.reference if base else "the host's own Python",
            "escapement.packages": " ".join(lock.lines()),
            "escapement.inputs": json.dumps(described, sort_keys=True),
        },
    )


def _load(client: Any, made: archive.Made, progress: Progress) -> str:
    from sandbox.backends import engine, images  # noqa: PLC0415 - backends import this module

    progress("giving it to the engine")
    images.load(client, made.path)
    found = engine.find_image(client, made.name)
    if found is None:
        raise InfrastructureError(f"The engine took {made.name} and does not know it.")
    progress(f"built {made.name} ({found[7:19]})")
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InfrastructureError(
            f"{path} can't be read ({error}): the sandbox image is built from a checkout."
        ) from error


@contextmanager
def alone(progress: Progress) -> Iterator[None]:
    """One build at a time for this user on this machine."""
    path = Path(tempfile.gettempdir()) / f"{REPOSITORY}-{os.getuid()}.lock"
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "rb+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process that builds the sandbox image")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
