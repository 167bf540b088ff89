"""Folders with scripts for the tests of the script task, and what is asked of them."""

from __future__ import annotations

import hashlib
import os

from runner.tasks import Places, get_task

HONEST = "LR = 0.1\nprint('---')\nprint(f'val_bpb: {1 + LR}')\nprint('depth: 3')\n"


def seen(folder):
    """Every path below a folder with its type, mode and content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        content = os.readlink(path) if path.is_symlink() else ""
        if path.is_file() and not path.is_symlink():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(folder))] = (info.st_mode, info.st_mtime_ns, content)
    return found


def made(folder, text=HONEST, *, out=None, **options):
    if text is not None:
        data = text if isinstance(text, bytes) else text.encode()
        (folder / "train.py").write_bytes(data)
    return get_task("script", {"dir": folder, **options}, places=Places(out=out))


def tried(task, **changes):
    return task.run({**task.space.defaults(), **changes}, seed=1)


def trials(out):
    return sorted((out / "trials").iterdir())
