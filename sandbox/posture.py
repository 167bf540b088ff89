"""What a worker's self-report has to say before foreign code may be loaded into it.

The report is taken before any foreign code runs, so it is a measurement. A control that does not
hold is an infrastructure error: nothing is loaded, nothing is judged.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from sandbox.backends.base import Purpose
from sandbox.errors import InfrastructureError
from sandbox.limits import Limits

UID = 64000
_ENVIRONMENT = {"PYTHONHASHSEED"}
_MOST_FILES = 256
_MOST_FSIZE = Limits.screening().tmp_bytes
# A base image that switches its locale on by itself may add these; they tell nothing.
# bubblewrap always names the working folder, which is the root.
_HARMLESS = {"LC_CTYPE", "HOME", "PWD"}


def measure(seen: dict[str, Any], *, writable: Collection[str]) -> dict[str, str]:
    """Each control by its name, and what is wrong with it by the worker's own measurement ("":
    it holds)."""
    sets = seen.get("capabilities") or {"?": "unknown"}
    held = {name: value for name, value in sets.items() if str(value).strip("0")}
    places = sorted(set(seen.get("writable", ["?"])) - set(writable))
    names = sorted(set(seen.get("environment", ["?"])) - _ENVIRONMENT - _HARMLESS)
    found = {
        "user": _user(seen),
        "capabilities": f"it has capabilities: {held}" if held or len(sets) < 4 else "",
        "no new privileges": "no-new-privileges is off"
        if seen.get("no_new_privileges") != "1"
        else "",
        "seccomp": "no seccomp filter is on" if seen.get("seccomp") != "2" else "",
        "network": f"it sees the network devices {seen.get('network_devices')}"
        if seen.get("network_devices") != ["lo"]
        else "",
        "files": f"it may write to {places}" if places else "",
        "environment": f"its environment has {names}" if names else "",
        "limits of the process": ", ".join(_unlimited(seen.get("limits"), writable=bool(writable))),
    }
    return found


def problems(seen: dict[str, Any], *, writable: Collection[str]) -> list[str]:
    """What is wrong with each control that does not hold; empty means all hold."""
    return [problem for problem in measure(seen, writable=writable).values() if problem]


def _user(seen: dict[str, Any]) -> str:
    if seen.get("uid") != UID or seen.get("gid") != UID:
        return f"it runs as {seen.get('uid')}:{seen.get('gid')}, not as {UID}:{UID}"
    if seen.get("groups") not in ([], [UID]):
        return f"it is in the groups {seen.get('groups')}"
    return ""


def _unlimited(limits: Any, *, writable: bool) -> Iterator[str]:
    """What the process may use without a bound; a mechanism may write nothing to any file."""
    most = {"nofile": _MOST_FILES, "core": 0, "fsize": _MOST_FSIZE if writable else 0, "cpu": None}
    for name, bound in most.items():
        pair = limits.get(name) if isinstance(limits, dict) else None
        hard = pair[1] if isinstance(pair, list) and len(pair) == 2 else None
        if type(hard) is not int or hard < 0 or (bound is not None and hard > bound):
            yield f"its limit {name} is {hard}"


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
