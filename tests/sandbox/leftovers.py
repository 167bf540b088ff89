"""What the workers of one owner left behind on the engine or in the control groups.

Of one owner alone: other processes use the same engine at the same time, and their dead are not
ours to count.
"""

from __future__ import annotations

import docker

from sandbox import reaper
from sandbox.backends import Backend
from sandbox.backends.bubblewrap import BubblewrapBackend


def left_of(backend: Backend, owner: str = "") -> list[str]:
    """Workers of that owner (default: this process) which are still there, in whatever state."""
    owner = owner or reaper.me()
    if isinstance(backend, BubblewrapBackend):
        _, _, pid, started = owner.split("|")
        parent = backend._groups.parents["memory"]
        return [p.name for p in parent.iterdir() if f".{pid}.{started}." in p.name]
    label = f"{reaper.LABEL_OWNER}={owner}"
    return [c["Id"] for c in docker.APIClient().containers(all=True, filters={"label": [label]})]
