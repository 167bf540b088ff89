"""Where the sandbox keeps what can be made again: a root folder, a doctor's verdict.

Whoever can write here decides what runs in the sandbox, so the folder has to be its user's own.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sandbox.errors import InfrastructureError

VARIABLE = "ESCAPEMENT_SANDBOX_CACHE"


def folder() -> Path:
    """The folder, made if it is missing: the variable's, root's own, or below the user's home."""
    named = os.environ.get(VARIABLE)
    if named:
        path = Path(named)
    elif os.geteuid() == 0:
        path = Path("/var/cache/escapement")  # root's home is closed to the worker's user
    else:
        path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "escapement"
    try:
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
        seen = path.stat()
    except OSError as error:
        raise InfrastructureError(
            f"The sandbox's cache {path} can't be made ({error.strerror}). Name another folder: "
            f"{VARIABLE}=/some/folder"
        ) from error
    if seen.st_uid != os.geteuid() or seen.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InfrastructureError(
            f"{path} must belong to this user and be writable by nobody else: it holds what runs "
            f"in the sandbox. `chmod go-w {path}`, or name another folder: {VARIABLE}=/some/folder"
        )
    return path.resolve()
