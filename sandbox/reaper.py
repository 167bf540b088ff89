"""Whose container is it? Labels that name the owning process, and whether it still lives.

A client that is killed leaves its container running; the next one on this machine removes it.
Only owners of this machine are judged: of another one nothing can be known here.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from pathlib import Path

LABEL_SANDBOX = "escapement.sandbox"
LABEL_OWNER = "escapement.owner"
LABEL_PURPOSE = "escapement.purpose"
LABEL_TICKET = "escapement.ticket"

# What this process started and did not give up. A container of ours without a ticket here was
# made, or kept, by an engine that answered too late.
_tickets: set[str] = set()
_lock = threading.Lock()


def take_ticket() -> str:
    """A name for something that is about to be started; it is ours until it is dropped."""
    ticket = secrets.token_hex(8)
    with _lock:
        _tickets.add(ticket)
    return ticket


def drop_ticket(ticket: str) -> None:
    """Give it up: whatever is there of it may be removed. May be called twice."""
    with _lock:
        _tickets.discard(ticket)


def is_taken(ticket: str) -> bool:
    """Whether this process still uses what has that ticket."""
    with _lock:
        return ticket in _tickets


def me() -> str:
    """This process as an owner: host, boot, process id and start time (ids are used again)."""
    return "|".join([_host(), _boot(), str(os.getpid()), _started(os.getpid())])


def is_orphan(owner: str, *, running: bool) -> bool:
    """Whether `owner` was a process of this machine and is dead; a label unlike ours is not ours.

    An owner of an earlier boot is dead, but the boot may also be another machine's of the same
    name on a shared engine: then only what no longer runs is taken.
    """
    parts = owner.split("|")
    if len(parts) != 4 or parts[0] != _host() or not parts[2].isdigit():
        return False
    _, boot, pid, started = parts
    if boot != _boot():
        return not running
    return _started(int(pid)) != started


def _host() -> str:
    # Two containers that share one engine may share a name, but not their view of process ids.
    return f"{socket.gethostname()}/{os.readlink('/proc/self/ns/pid')}"


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _started(pid: int) -> str:
    """When the process started, in the kernel's clock ticks; "gone" if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return "gone"
    fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    return "gone" if fields[0] in ("Z", "X") else fields[19]
