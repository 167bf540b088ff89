"""Whether the sandbox may be given untrusted code: the doctor's verdict, kept for a while.

The doctor takes seconds, so that a verdict serves for every screening on the same engine, image
and flags until it is old. A bad one serves a minute, and whatever changes asks for another one.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sandbox import cache, doctor
from sandbox.backends.base import Backend
from sandbox.errors import InfrastructureError

GOOD_SECONDS = 30 * 60
BAD_SECONDS = 60
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_lock = threading.Lock()
_bad: dict[str, tuple[float, str]] = {}


def require(backend: Backend, progress: Callable[[str], None] | None = None) -> None:
    """Raise InfrastructureError, naming them, while one control does not hold on `backend`."""
    key = _key(backend)
    with _lock:
        if _is_good(key):
            return
        at, problem = _bad.get(key, (0.0, ""))
        if not problem or time.monotonic() - at > BAD_SECONDS:
            if progress:
                progress("examining the sandbox")
            problem = record(backend, doctor.examine(backend=backend))
    if problem:
        raise InfrastructureError(problem)


def record(backend: Backend, controls: list[doctor.Control]) -> str:
    """Keep a verdict; what is wrong, or "" if every control holds."""
    key, wrong = _key(backend), [c for c in controls if not c.ok]
    if not wrong and controls:
        _bad.pop(key, None)
        _store(key)
        return ""
    _file(key).unlink(missing_ok=True)
    names = "; ".join(c.control for c in wrong[:5]) or "nothing was tried"
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    first = f" {wrong[0].what_to_do}" if wrong else ""
    problem = (
        f"The sandbox does not hold, so nothing is run in it: {names}{more}.{first[:400]} "
        "Run: python -m sandbox doctor"
    )
    _bad[key] = (time.monotonic(), problem)
    return problem


def _key(backend: Backend) -> str:
    boot = _BOOT.read_text(encoding="ascii") if _BOOT.exists() else ""
    probe = hashlib.sha256(doctor.PROBE.read_bytes()).hexdigest()
    whole = "\n".join([backend.fingerprint, probe, boot.strip()])
    return hashlib.sha256(whole.encode()).hexdigest()


def _file(key: str) -> Path:
    return cache.folder() / f"doctor-{key[:32]}.json"


def _is_good(key: str) -> bool:
    """Whether there is a good verdict that is neither old nor from the future nor broken."""
    try:
        kept = json.loads(_file(key).read_bytes())
        return kept["key"] == key and 0 <= time.time() - float(kept["at"]) <= GOOD_SECONDS
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _store(key: str) -> None:
    file = _file(key)
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".doctor-")
    with open(descriptor, "w", encoding="ascii") as out:
        json.dump({"key": key, "at": time.time()}, out)
    os.replace(name, file)
