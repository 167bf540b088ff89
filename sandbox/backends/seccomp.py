"""Our seccomp profile as a program for the kernel, where no engine compiles it for us.

Reads the same `seccomp.json` that Docker gets. libseccomp knows the numbers of the calls on each
architecture and writes the program; nothing is assembled here (docs/adr/0014).
"""

from __future__ import annotations

import errno
import functools
import json
import tempfile
from pathlib import Path
from typing import Any

from sandbox.errors import InfrastructureError

_ALLOW, _ERRNO = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
_NEEDS = "It needs libseccomp (`apt-get install libseccomp2`) and `pip install pyseccomp`."


def read_profile(path: Path) -> bytes:
    """The profile's bytes as they are now. Raises InfrastructureError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InfrastructureError(
            f"The seccomp profile {path} can't be read: {error.strerror}. Get it from the checkout."
        ) from error


@functools.cache
def compile_profile(data: bytes) -> bytes:
    """The profile as a BPF program for this machine. Raises InfrastructureError.

    Kept by content and not by name: a profile that is edited is another one at once."""
    try:
        profile = json.loads(data)
        return _compile(profile["defaultAction"], profile.get("defaultErrnoRet"), profile)
    except (ValueError, KeyError, TypeError) as error:
        raise InfrastructureError(
            f"The seccomp profile can't be compiled: {error!r}. Get it from the checkout."
        ) from error


def allow_everything() -> bytes:
    """A program that refuses nothing, for the drill of the doctor alone."""
    return _compile(_ALLOW, None, {})


@functools.cache
def forbid_programs() -> bytes:
    """A second program that refuses execve and nothing else: a filter that is loaded before the
    worker starts has to let that one start happen."""
    names = ["execve", "execveat"]
    profile = {"syscalls": [{"names": names, "action": _ERRNO, "errnoRet": errno.EPERM}]}
    return _compile(_ALLOW, None, profile)


def _library() -> Any:
    try:
        import pyseccomp  # noqa: PLC0415 - the library behind it may be missing on this machine
    except (ImportError, OSError, RuntimeError) as error:
        raise InfrastructureError(f"No seccomp filter can be made: {error}. {_NEEDS}") from error
    return pyseccomp


def _compile(default: str, default_errno: int | None, profile: dict[str, Any]) -> bytes:
    library = _library()
    program = library.SyscallFilter(_action(library, default, default_errno))
    for group in profile.get("syscalls", []):
        action = _action(library, group["action"], group.get("errnoRet"))
        arguments = [_argument(library, a) for a in group.get("args") or []]
        for name in group["names"]:
            try:
                program.add_rule(action, name, *arguments)
            except (OSError, ValueError) as error:
                # A call that this library does not know can't be allowed: it stays refused. One
                # that has to answer in its own way must be known.
                if group["action"] != _ALLOW:
                    raise InfrastructureError(
                        f"This libseccomp does not know the call {name}: {error}. {_NEEDS}"
                    ) from error
    with tempfile.TemporaryFile() as file:
        program.export_bpf(file)
        file.seek(0)
        return file.read()


def _action(library: Any, name: str, code: int | None) -> Any:
    if name == _ALLOW:
        return library.ALLOW
    if name == _ERRNO:
        return library.ERRNO(errno.EPERM if code is None else code)
    raise ValueError(f"an action of another kind: {name}")


def _argument(library: Any, rule: dict[str, Any]) -> Any:
    if rule["op"] == "SCMP_CMP_EQ":
        return library.Arg(rule["index"], library.EQ, rule["value"])
    if rule["op"] == "SCMP_CMP_NE":
        return library.Arg(rule["index"], library.NE, rule["value"])
    if rule["op"] == "SCMP_CMP_MASKED_EQ":
        mask, wanted = rule["value"], rule.get("valueTwo", 0)
        return library.Arg(rule["index"], library.MASKED_EQ, mask, wanted)
    raise ValueError(f"a comparison of another kind: {rule['op']}")
