"""A base root file system from the host's own Python, for sites where no registry answers.

The standard library, the interpreter, the shared libraries that they and the given packages need,
a passwd file and an empty /tmp: no shell, no setuid file, no package manager. It is laid out as
`python:3.11-slim` is (/usr/local), so one Dockerfile serves both. It knows no engine.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable
from pathlib import Path

from sandbox.errors import InfrastructureError

VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
_LEAVE_OUT = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "lib2to3",
    "pydoc_data",
    "__pycache__",
}
_LEAVE_OUT_NAMES = re.compile(r"config-3.*|.*\.a|sitecustomize\.py|_tkinter\..*|_.*test.*\.so")
# Loaded by name at run time, where no list of dependencies shows them.
_LOADED_LATER = ("libgcc_s.so.1", "libstdc++.so.6")
_ETC = {
    "passwd": "root:x:0:0::/:/sbin/nologin\nsandbox:x:64000:64000::/tmp:/sbin/nologin\n",
    "group": "root:x:0:\nsandbox:x:64000:\n",
    "nsswitch.conf": "hosts: files\n",
}
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")
_BATCH = 100


def build(root: Path, packages: Path) -> None:
    """Fill the folder `root`; `packages` is a folder whose compiled modules must find libraries."""
    if not sys.platform.startswith("linux"):
        raise InfrastructureError("A base from the host's Python needs a Linux host.")
    usr = root / "usr/local"
    (usr / "bin").mkdir(parents=True)
    for place in ("etc", "tmp", "proc", "sys", "dev"):
        (root / place).mkdir()
    interpreter = _interpreter()
    shutil.copyfile(interpreter, usr / "bin" / VERSION)
    (usr / "bin" / VERSION).chmod(0o755)
    (usr / "bin/python3").symlink_to(VERSION)
    library = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(library, usr / "lib" / VERSION, ignore=_ignore, symlinks=False)
    (usr / "lib" / VERSION / "site-packages").mkdir()
    modules = [*(usr / "lib" / VERSION).rglob("*.so"), *packages.rglob("*.so*")]
    _copy_libraries(root, interpreter, modules)
    for name, text in _ETC.items():
        (root / "etc" / name).write_text(text, encoding="ascii")


def write_tar(folder: Path, tar: Path, *, prefix: str = "") -> None:
    """The folder as a tar whose bytes depend on its content alone: owner, time and order fixed.

    `prefix` ends with a slash; its folders are in it too."""

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = 0
        info.uname = info.gname = "root"
        info.mtime = 0
        executable = info.isdir() or info.mode & stat.S_IXUSR
        info.mode = 0o1777 if info.name == "tmp" else 0o755 if executable else 0o644
        return info

    with tarfile.open(tar, "w") as archive:
        parts = prefix.strip("/").split("/") if prefix else []
        for depth in range(1, len(parts) + 1):
            archive.addfile(plain(_folder("/".join(parts[:depth]))))
        for path in sorted(folder.rglob("*")):
            name = prefix + str(path.relative_to(folder))
            archive.add(path, name, recursive=False, filter=plain)


def _folder(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


def _interpreter() -> Path:
    """The real interpreter behind the virtual environment."""
    for folder in (Path(sys.base_prefix) / "bin", Path(sys.base_exec_prefix) / "bin"):
        path = (folder / VERSION).resolve()
        if path.is_file():
            return path
    raise InfrastructureError(
        f"No {VERSION} below {sys.base_prefix}: let a registry give python:3.11-slim to the "
        "engine instead (`docker pull python:3.11-slim`)."
    )


def _ignore(folder: str, names: list[str]) -> set[str]:
    broken = {n for n in names if not os.path.exists(os.path.join(folder, n))}
    return broken | {n for n in names if n in _LEAVE_OUT or _LEAVE_OUT_NAMES.fullmatch(n)}


def _copy_libraries(root: Path, interpreter: Path, modules: Iterable[Path]) -> None:
    needed = _needed([interpreter])
    system = _system_folder(needed)
    needed |= _needed(modules)
    for name in _LOADED_LATER:
        path = next((f / name for f in _search(system) if (f / name).exists()), None)
        if path is None:
            raise InfrastructureError(
                f"{name} is not on this machine, and numpy needs it: `apt-get install libstdc++6`."
            )
        needed |= {path} | _needed([path])
    for path in sorted(needed):
        # All beside the C library, where the loader looks without being told; the loader itself
        # has to stay at the path that is written in the interpreter.
        loader = path.name.startswith("ld-linux")
        target = root / str(path if loader else system / path.name).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copyfile(path.resolve(), target)
            target.chmod(0o755)


def _needed(files: Iterable[Path]) -> set[Path]:
    """Shared libraries outside of the packages that the files need, by the loader's own word."""
    found: set[Path] = set()
    todo = [str(f) for f in files]
    for start in range(0, len(todo), _BATCH):
        answer = subprocess.run(  # noqa: S603 - on files of the host and of the pinned wheels
            ["ldd", *todo[start : start + _BATCH]],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,  # one module that is no ELF file makes it fail; what counts is the list
        )
        found |= {Path(p) for p in _LIBRARY.findall(answer.stdout)}
    bundled = {f for f in found if "site-packages" in f.parts or ".libs" in str(f.parent)}
    return found - bundled


def _system_folder(libraries: Iterable[Path]) -> Path:
    for path in libraries:
        if path.name.startswith("libc.so"):
            return path.parent
    raise InfrastructureError("The host's Python has no C library that `ldd` can see.")


def _search(system: Path) -> list[Path]:
    return [system, Path("/usr") / str(system).lstrip("/"), Path("/usr/lib"), Path("/usr/lib64")]
