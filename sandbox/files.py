"""A file on the host that is written whole or not at all. No part of the sandbox's image."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def put(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace `path` by `data`: who reads meanwhile, and who finds it after a kill or a full disk,
    has the old bytes or the new ones. Its folder must be there. Raises OSError."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
