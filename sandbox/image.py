"""The sandbox image: what is in it, its name by content, and how it is made.

The tag is the hash of every input, so a changed worker means a new image and an unchanged one is
found at once. Packages come from the host's pip at the versions of constraints.txt; the base from
a registry where one answers, else from the host's own Python. Nothing here knows Docker.
"""

from __future__ import annotations

import compileall
import fcntl
import hashlib
import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandbox import rootfs
from sandbox.errors import InfrastructureError

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = "escapement-sandbox"
BASE_REPOSITORY = "escapement-base"
REGISTRY_BASE = "python:3.11-slim"
TARGET = "sandbox"
OURS = ("__init__", "mechanism", "protocol", "worker", "selfreport", "testrun", "testing")
FOR_MECHANISMS = ("numpy", "scipy", "scikit-learn", "optuna", "cmaes")
FOR_TESTS = ("pytest",)
# What those import, and no more: optuna's databases and migrations are left out.
_IMPORTED = ("joblib", "cloudpickle", "threadpoolctl", "narwhals", "colorlog", "tqdm")
_IMPORTED += ("iniconfig", "packaging", "pluggy", "pygments")
PACKAGES = (*FOR_MECHANISMS, *FOR_TESTS, *_IMPORTED)
# Folders of packages that nothing imports; a sixth of the image. numpy's own are small and used.
LEFT_OUT = ("scipy/**/tests", "sklearn/**/tests")
PIP_SECONDS = 600

Progress = Callable[[str], None]


def digest(data: bytes) -> str:
    """SHA-256 of `data` in hex."""
    return hashlib.sha256(data).hexdigest()


def inputs() -> dict[str, bytes]:
    """Everything that decides what is in the image, by name."""
    found = {f"sandbox/{name}.py": _read(ROOT / "sandbox" / f"{name}.py") for name in OURS}
    found["rootfs.py"] = _read(ROOT / "sandbox/rootfs.py")
    found["Dockerfile"] = dockerfile().encode()
    found["packages"] = "\n".join([*pins(), *LEFT_OUT]).encode()
    found["python"] = sys.version.encode()
    return found


def tag() -> str:
    """The image's name: the hash of all inputs."""
    whole = hashlib.sha256()
    for name, data in sorted(inputs().items()):
        whole.update(f"{name} {digest(data)}\n".encode())
    return f"{REPOSITORY}:{whole.hexdigest()[:16]}"


def pins() -> list[str]:
    """`name==version` of every package in the image, from constraints.txt."""
    known = {}
    for line in _read(ROOT / "constraints.txt").decode().splitlines():
        name, _, version = line.partition("==")
        known[name.strip().lower()] = version.strip()
    missing = [name for name in PACKAGES if name not in known]
    if missing:
        raise InfrastructureError(f"constraints.txt does not pin {', '.join(missing)}.")
    return [f"{name}=={known[name]}" for name in PACKAGES]


def dockerfile() -> str:
    """The Dockerfile up to the end of the sandbox target: other targets don't change the image."""
    kept: list[str] = []
    inside = False
    for line in _read(ROOT / "Dockerfile").decode().splitlines():
        if line.upper().startswith("FROM "):
            if inside:
                break
            inside = line.split()[-1] == TARGET
        kept.append(line)
    if not inside:
        raise InfrastructureError(f"The Dockerfile has no target {TARGET!r}.")
    while kept and (not kept[-1].strip() or kept[-1].startswith("#")):
        kept.pop()  # the comment above the next target
    return "\n".join(kept) + "\n"


def current_image(client: Any) -> str:
    """The id of the image for these inputs; InfrastructureError with the fix if there is none."""
    from sandbox.backends import engine  # noqa: PLC0415 - backends import this module

    found = engine.find_image(client, tag())
    if found is None:
        raise InfrastructureError(
            f"The sandbox image {tag()} is not built yet. Run: python -m sandbox image"
        )
    return found


def ensure_image(progress: Progress) -> str:
    """The id of the image for these inputs, built now if it is missing (half a minute)."""
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
        return _build(client, Path(folder), name, progress)


def _build(client: Any, folder: Path, name: str, progress: Progress) -> str:
    from sandbox.backends import engine  # noqa: PLC0415 - backends import this module

    progress(f"building {name}")
    site = folder / "context/site"
    site.mkdir(parents=True)
    progress(f"installing {', '.join(pins())}")
    install_packages(site)
    copy_ours(site)
    base = _base(client, folder, site, name, progress)
    (folder / "context/Dockerfile").write_text(dockerfile(), encoding="utf-8")
    progress("compiling and packing")
    compile_folder(site)
    rootfs.write_tar(folder / "context", folder / "context.tar")
    with (folder / "context.tar").open("rb") as context:
        image_id = engine.build(
            client,
            context,
            target=TARGET,
            tag=name,
            arguments={"SANDBOX_BASE": base},
            labels={"escapement.base": base, "escapement.packages": " ".join(pins())},
            progress=progress,
        )
    progress(f"built {name} ({image_id[7:19]}) on {base}")
    return image_id


def _base(client: Any, folder: Path, site: Path, name: str, progress: Progress) -> str:
    from sandbox.backends import engine  # noqa: PLC0415 - backends import this module

    if engine.find_image(client, REGISTRY_BASE):
        progress(f"the engine has {REGISTRY_BASE}")
        return REGISTRY_BASE
    progress(f"asking the registry for {REGISTRY_BASE} (a few seconds at most)")
    if engine.pull(client, REGISTRY_BASE, progress):
        return REGISTRY_BASE
    progress(f"BUILDING WITHOUT A REGISTRY: the base is this machine's own {sys.executable}")
    root = folder / "root"
    rootfs.build(root, site)
    compile_folder(root)
    rootfs.write_tar(root, folder / "root.tar")
    base = f"{BASE_REPOSITORY}:{name.rpartition(':')[2]}"
    engine.import_root(client, folder / "root.tar", base)
    return base


def install_packages(site: Path) -> None:
    """The pinned packages as wheels into a folder; no package's own code is run."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    command += ["--only-binary=:all:", "--no-warn-script-location", "--target", str(site), *pins()]
    try:
        answer = subprocess.run(  # noqa: S603 - fixed arguments and our own pins
            command, capture_output=True, text=True, check=False, timeout=PIP_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise InfrastructureError(
            f"pip did not fetch the sandbox's packages within {PIP_SECONDS} s."
        ) from error
    if answer.returncode:
        raise InfrastructureError(
            f"pip can't fetch the sandbox's packages ({' '.join(pins())}): "
            f"{answer.stderr.strip()[-800:]}. Point pip at an index or at a folder of wheels "
            "(PIP_INDEX_URL, PIP_FIND_LINKS) and try again."
        )
    shutil.rmtree(site / "bin", ignore_errors=True)
    for pattern in LEFT_OUT:
        for folder in sorted(site.glob(pattern), reverse=True):  # the inner ones first
            shutil.rmtree(folder)


def copy_ours(site: Path) -> None:
    """Our files of the inside half, below `site`."""
    (site / "sandbox").mkdir()
    for name in OURS:
        shutil.copyfile(ROOT / "sandbox" / f"{name}.py", site / "sandbox" / f"{name}.py")


def compile_folder(folder: Path) -> None:
    """Byte code beside the sources: the sandbox can write none, and would compile at each start."""
    compileall.compile_dir(
        folder,
        quiet=2,
        maxlevels=32,
        stripdir=str(folder),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


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
