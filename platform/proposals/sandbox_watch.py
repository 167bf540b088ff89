"""What the pages know of the sandbox: the worker's last word about its controls, in a file.

The web process starts no sandbox and may not be able to. The worker looks every minute (the doctor
itself at most every half hour, or when something changed) and leaves what is wrong beside its sign
of life. Nothing decides by this file: each look at a draft asks the sandbox itself.
"""

from __future__ import annotations

import json
from pathlib import Path

from django.conf import settings
from django.utils import timezone

from sandbox import clearance
from sandbox.backends import get_backend
from sandbox.errors import InfrastructureError
from sandbox.files import put

FILE = "sandbox.problem"
MAX_BYTES = 16_384


def watch() -> int:
    """Look, and say so if something does not hold; 1 if what is said changed."""
    before, problem = said(), ""
    try:
        clearance.require(get_backend(settings.SANDBOX_BACKEND))
    except InfrastructureError as error:
        problem = str(error)[:2000]
    if problem == before:
        return 0
    if not problem:
        _path().unlink(missing_ok=True)
        return 1
    at = timezone.now().isoformat(timespec="seconds")
    put(_path(), json.dumps({"problem": problem, "since": at}).encode(), mode=0o644)
    return 1


def said() -> str:
    """What does not hold by the worker's last word; "" if all does, or if it said nothing."""
    try:
        with _path().open("rb") as file:
            known = json.loads(file.read(MAX_BYTES))
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        return f"{_path()} can't be read: {error}. Is `manage.py work` running?"
    problem = known.get("problem") if isinstance(known, dict) else None
    return problem if isinstance(problem, str) else f"{_path()} says something else."


def _path() -> Path:
    return Path(settings.VAR) / FILE
