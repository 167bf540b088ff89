"""Whether the sandbox may be given untrusted code: the doctor's verdict, kept for a while.

The doctor takes seconds, so that a verdict serves for every worker on the same engine, image, flags
and code of the posture until it is old. A bad one serves a minute, and whatever changes asks for
another one. Where the code of the posture changed since this process started, nothing is cleared:
what runs here is not what is on the disk, and a verdict about one must not serve the other.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sandbox import cache, doctor
from sandbox.backends.base import Backend
from sandbox.errors import InfrastructureError
from sandbox.files import put

GOOD_SECONDS = 30 * 60
BAD_SECONDS = 60
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_HERE = Path(__file__).parent
# What decides how a worker is caged, and what is said of it. The seccomp profile is read at each
# start and is part of a backend's fingerprint.
_CODE = ("clearance.py", "doctor.py", "doctor_probe.py", "limits.py", "posture.py", "reaper.py")
_lock = threading.Lock()
_bad: dict[str, tuple[float, str]] = {}


def code() -> dict[str, str]:
    """Digests of the files that make the posture, as they are on the disk now."""
    files = [*(_HERE / name for name in _CODE), *sorted((_HERE / "backends").glob("*.py"))]
    return {str(f.relative_to(_HERE)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


_loaded = code()


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
    key, problem = _key(backend), problem_of(controls)
    if not problem:
        _bad.pop(key, None)
        put(_file(key), json.dumps({"key": key, "at": time.time()}).encode())
        return ""
    _file(key).unlink(missing_ok=True)
    _bad[key] = (time.monotonic(), problem)
    return problem


def problem_of(controls: list[doctor.Control]) -> str:
    """What a screening, and a runner, is told of these controls; "" if every one holds."""
    wrong = [c for c in controls if not c.ok]
    if controls and not wrong:
        return ""
    names = "; ".join(c.control for c in wrong[:5]) or "nothing was tried"
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    first = f" {wrong[0].what_to_do}" if wrong else ""
    return (
        f"The sandbox does not hold, so nothing is run in it: {names}{more}.{first[:400]} "
        "Run: python -m sandbox doctor"
    )


def _key(backend: Backend) -> str:
    now = code()
    if changed := sorted(
        name for name in now.keys() | _loaded if now.get(name) != _loaded.get(name)
    ):
        raise InfrastructureError(
            f"The sandbox's own code changed since this process started ({', '.join(changed)}), so "
            "nothing is run in it. Find out by whom; then start this process anew."
        )
    boot = _BOOT.read_text(encoding="ascii") if _BOOT.exists() else ""
    whole = "\n".join([backend.fingerprint, json.dumps(now), boot.strip()])
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
