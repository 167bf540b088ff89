"""The content of the sandbox image as a folder, for backends without an engine and its images.

Made of the same pinned packages and the same files of ours on the host's own Python, once, and
kept in the cache. Its id is the hash of everything in it, and each process checks it once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

from sandbox import cache, image, layout, rootfs
from sandbox import lock as locks
from sandbox.errors import ImageMissing, InfrastructureError

# Mount points: the root is read-only when these are mounted.
DEVICES = ("null", "zero", "full", "random", "urandom")
_checked: dict[Path, str] = {}


def ensure(progress: image.Progress | None = None) -> tuple[Path, str]:
    """The root folder and its id; built now if it is missing and `progress` is given.

    Raises InfrastructureError with the fix; also where the folder is not what was built.
    """
    root = cache.folder() / f"root-{image.tag().rpartition(':')[2]}"
    if not root.exists():
        if progress is None:
            raise ImageMissing(
                f"The sandbox's root folder {root} is not built yet. Run: python -m sandbox image"
            )
        with image.alone(progress):
            if not root.exists():
                _build(root, progress)
    known = _read_id(root)
    if _checked.get(root) == known:
        return root, known
    found = folder_id(root)
    if found != known:
        raise InfrastructureError(
            f"{root} was changed after it was built. Find out by whom; then `rm -r {root}` and "
            "run: python -m sandbox image"
        )
    _checked[root] = found
    return root, found


def folder_id(root: Path) -> str:
    """`folder:sha256:...` over every path, mode and byte below `root`."""
    whole = hashlib.sha256()
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(folders + files):
            path = os.path.join(folder, name)
            seen = os.lstat(path)
            line = [os.path.relpath(path, root), oct(seen.st_mode), str(seen.st_uid == 0)]
            if stat.S_ISLNK(seen.st_mode):
                line.append(os.readlink(path))
            elif stat.S_ISREG(seen.st_mode):
                with open(path, "rb") as file:
                    line.append(hashlib.file_digest(file, "sha256").hexdigest())
            whole.update("\0".join(line).encode() + b"\n")
    return f"folder:sha256:{whole.hexdigest()}"


def _read_id(root: Path) -> str:
    path = root.with_suffix(".id")
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise InfrastructureError(
            f"{path} is missing, so {root} can't be checked. `rm -r {root}` and run: "
            "python -m sandbox image"
        ) from error


def _build(root: Path, progress: image.Progress) -> None:
    progress(f"building the root folder {root}")
    with tempfile.TemporaryDirectory(prefix="building-", dir=root.parent) as folder:
        made, site = Path(folder, "root"), Path(folder, "site")
        site.mkdir()
        layout.fill_site(site, locks.current(), progress)
        rootfs.build(made, site)
        (made / "opt").mkdir()
        shutil.move(site, made / "opt/sandbox")
        progress("compiling")
        layout.compile_folder(made)
        for name in DEVICES:
            (made / "dev" / name).touch()
        _settle(made)
        identity = folder_id(made)
        root.with_suffix(".id").write_text(identity + "\n", encoding="ascii")
        made.rename(root)
    progress(f"built {root} ({identity[14:26]})")


def _settle(root: Path) -> None:
    """Everything readable by the worker's user and writable by the owner alone."""
    root.chmod(0o755)
    for path in root.rglob("*"):
        if path.is_symlink():
            continue
        executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
        path.chmod(0o755 if executable else 0o644)
