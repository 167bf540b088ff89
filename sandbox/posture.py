"""What a worker's self-report has to say before foreign code may be loaded into it.

The report is taken before any foreign code runs, so it is a measurement. A control that does not
hold is an infrastructure error: nothing is loaded, nothing is judged.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sandbox.backends.base import Purpose
from sandbox.errors import InfrastructureError

UID = 64000
_ENVIRONMENT = {"PYTHONHASHSEED"}
# A base image that switches its locale on by itself may add these; they tell nothing.
# bubblewrap always names the working folder, which is the root.
_HARMLESS = {"LC_CTYPE", "HOME", "PWD"}


def problems(seen: dict[str, Any], *, writable: Collection[str]) -> list[str]:
    """Each control that does not hold by the worker's own measurement; empty means all hold."""
    found = []
    if seen.get("uid") != UID or seen.get("gid") != UID:
        found.append(f"it runs as {seen.get('uid')}:{seen.get('gid')}, not as {UID}:{UID}")
    if seen.get("groups") not in ([], [UID]):
        found.append(f"it is in the groups {seen.get('groups')}")
    sets = seen.get("capabilities") or {"?": "unknown"}
    held = {name: value for name, value in sets.items() if str(value).strip("0")}
    if held or len(sets) < 4:
        found.append(f"it has capabilities: {held}")
    if seen.get("no_new_privileges") != "1":
        found.append("no-new-privileges is off")
    if seen.get("seccomp") != "2":
        found.append("no seccomp filter is on")
    if seen.get("network_devices") != ["lo"]:
        found.append(f"it sees the network devices {seen.get('network_devices')}")
    if extra := set(seen.get("writable", ["?"])) - set(writable):
        found.append(f"it may write to {sorted(extra)}")
    if extra := set(seen.get("environment", ["?"])) - _ENVIRONMENT - _HARMLESS:
        found.append(f"its environment has {sorted(extra)}")
    return found


def writable(purpose: Purpose) -> tuple[str, ...]:
    """Where a worker for that purpose may write: unit tests have /tmp, a mechanism nothing."""
    return ("/tmp",) if purpose is Purpose.TESTS else ()  # noqa: S108  # nosec B108


def require_posture(seen: dict[str, Any], *, writable: Collection[str]) -> None:
    """Raise InfrastructureError unless every control holds."""
    if found := problems(seen, writable=writable):
        raise InfrastructureError(
            f"The sandbox does not hold: {'; '.join(found)}. Nothing was loaded into it. "
            "Run: python -m sandbox doctor"
        )
