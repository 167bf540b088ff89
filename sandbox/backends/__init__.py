"""Backends that start sandbox workers; the posture is the same behind each of them."""

from __future__ import annotations

import os
from collections.abc import Callable

from sandbox.backends.base import Backend, Switch
from sandbox.errors import InfrastructureError

NAMES = ("docker", "bubblewrap")


def get_backend(
    name: str | None = None,
    *,
    progress: Callable[[str], None] | None = None,
    without: Switch | None = None,
) -> Backend:
    """The backend of that name; by default `ESCAPEMENT_SANDBOX`, else Docker.

    Raises InfrastructureError with the fix if no engine answers or the image is missing; with
    `progress` a missing image is built. `ESCAPEMENT_SANDBOX_RUNTIME` chooses another runtime of
    the engine (runsc, kata). `without` is for the doctor's drill: what it starts has one control
    off, has no fingerprint, and so is never cleared for anything.
    """
    name = name or os.environ.get("ESCAPEMENT_SANDBOX") or NAMES[0]
    if name not in NAMES:
        raise InfrastructureError(f"There is no sandbox backend {name!r}; known: {NAMES}.")
    if name == "bubblewrap":
        from sandbox.backends.bubblewrap import BubblewrapBackend  # noqa: PLC0415 - if chosen

        return BubblewrapBackend.connect(progress=progress, without=without)
    from sandbox.backends.docker import DockerBackend  # noqa: PLC0415 - only where it is used

    runtime = os.environ.get("ESCAPEMENT_SANDBOX_RUNTIME", "")
    return DockerBackend.connect(runtime=runtime, progress=progress, without=without)
