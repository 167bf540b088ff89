"""The lock in force: what was adopted last, and that the file on this machine says the same.

The newest `LockVersion` is the truth; the file that `sandbox.lock` reads, and a commit in the
mechanisms repository, follow it. Before the first adoption the seed's lock is in force, and a file
that nobody adopted is refused.
"""

from __future__ import annotations

import hashlib

from audit.actors import SYSTEM
from proposals import branches
from proposals.acts import act

from dependencies.models import LockVersion
from sandbox import lock as locks
from sandbox.errors import InfrastructureError
from sandbox.lock import Lock, LockError, parse


def newest() -> LockVersion | None:
    """What was adopted, or rolled back to, last; None: nothing ever was."""
    return LockVersion.objects.select_related("request", "restores").first()


def digest_in_force() -> str:
    """The digest of the lock in force; empty while nothing was ever adopted."""
    row = newest()
    return row.digest if row else ""


def lock_in_force() -> Lock:
    """The lock in force. Raises InfrastructureError."""
    row = newest()
    return lock_of(row) if row else locks.seed()


def lock_of(row: LockVersion) -> Lock:
    """A row's lock, its digest compared. Raises LockError."""
    found = parse(row.text.encode())
    if found.digest != row.digest:
        raise LockError(f"Lock {row.generation} is not what was adopted: run verify_audit.")
    return found


def require() -> None:
    """Raise InfrastructureError while the file is not the lock in force: nothing is screened."""
    row, site = newest(), locks.site()
    if row is None and site is not None:
        raise InfrastructureError(
            f"{locks.folder() / locks.FILE} is a lock that nobody adopted here: remove it. A "
            "package comes in by a request (Packages, Ask for one)."
        )
    if row is not None and (site is None or site.digest != row.digest):
        raise InfrastructureError(
            f"The lock on this machine is not lock {row.generation}, which is in force. The "
            "worker puts it back by itself; if this stays, look at its messages."
        )


def settle() -> int:
    """Put the lock in force on this machine and into the repository, where it is not."""
    row = newest()
    if row is None:
        return 0
    try:
        site = locks.site()
        found = site.digest if site else ""
    except LockError:
        found = "unreadable"
    done = 0
    if found != row.digest:
        with act(actor=SYSTEM, tried="settle", subject=f"lock:{row.generation}") as ledger:
            locks.keep(lock_of(row))
            ledger.write(
                "lock.settled",
                subject=f"lock:{row.generation}",
                data={"generation": row.generation, "digest": row.digest, "found": found},
            )
        done += 1
    repository = branches.living()
    if repository.kept_lock() != row.text.encode():
        repository.keep_lock(row.text.encode(), f"Lock {row.generation} of the sandbox image")
        done += 1
    return done


def short(data: bytes) -> str:
    """The beginning of a digest, for people."""
    return hashlib.sha256(data).hexdigest()[:12]
