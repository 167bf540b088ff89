"""What `manage.py doctor` looks at: each part of an installation, with the fix for what fails.

Every look is real (it asks the part, not a setting) and bounded, and none changes anything.
"""

from __future__ import annotations

import io
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from importlib import metadata

from audit import checks as audit_checks
from audit import keys
from audit.models import Entry
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from runs.models import Runner

from proposals import branches, operators, provenance, standing, sweeps
from sandbox import doctor as sandbox_doctor
from sandbox.advisory_files import SnapshotError

FREE_BYTES = 2 * 1024**3
BEAT_SECONDS = 60
# A clone has its own environment, with all of the lock; an image has its part of it.
CLONE = sys.prefix == str(settings.ROOT / ".venv")
MANAGE = f"{'.venv/bin/python' if CLONE else 'python'} manage.py"
START = f"make demo (or, for a site: {MANAGE}"


class Unwell(Exception):
    """A part does not work: what is wrong, and the fix."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem)
        self.fix = fix


@dataclass(frozen=True, kw_only=True)
class Look:
    """The result of one look; `fix` is empty if the part works."""

    part: str
    words: str
    fix: str = ""


def python() -> str:
    """The interpreter."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] != (3, 11):
        raise Unwell(f"Python {version}, 3.11 is needed", "PYTHON=/path/to/python3.11 make setup")
    return f"Python {version}"


def dependencies() -> str:
    """Every pin of the lock is installed in its version; in an image, those that are there."""
    wrong, there = [], 0
    pins = [p for p in (settings.ROOT / "constraints.txt").read_text().splitlines() if "==" in p]
    for pin in pins:
        name, wanted = pin.split("==")
        try:
            found = metadata.version(name)
            there += 1
        except metadata.PackageNotFoundError:
            if not CLONE:  # that nothing needed is missing, `pip check` said when it was built
                continue
            found = "missing"
        if found.partition("+")[0] != wanted:
            wrong.append(f"{name} {found} (locked: {wanted})")
    if wrong:
        raise Unwell("; ".join(wrong[:5]), "rm -f .venv/.stamp && make setup")
    return f"{there} packages as locked"


def disk() -> str:
    """Room for the database, the repository and containers."""
    free = shutil.disk_usage(settings.VAR if settings.VAR.exists() else settings.ROOT).free
    if free < FREE_BYTES:
        raise Unwell(
            f"only {free // 2**20} MiB free for {settings.VAR}",
            "free some space, or set ESCAPEMENT_VAR to a folder on a larger disk",
        )
    return f"{free / 2**30:.1f} GiB free"


def database() -> str:
    """It answers, and its tables are those of the models."""
    try:
        connection.ensure_connection()
        executor = MigrationExecutor(connection)
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError as error:
        raise Unwell(f"no database: {error}", "see DATABASE_URL, or unset it for SQLite") from error
    if plan:
        raise Unwell(f"{len(plan)} migrations are missing", f"{MANAGE} migrate")
    return f"{connection.vendor}, migrated"


def triggers() -> str:
    """The audit log can't be changed by statements."""
    if Entry._meta.db_table not in connection.introspection.table_names():
        raise Unwell("there is no audit log yet", f"{MANAGE} migrate")
    for message in audit_checks.append_only(databases=["default"]):
        raise Unwell(message.msg, message.hint or "")
    return "the audit log is append-only"


def signing_key() -> str:
    """The platform's key pair."""
    try:
        public = keys.public_key_hex()
        on_file = keys.public_path().read_text("ascii").strip()
    except (keys.KeyProblem, OSError) as error:
        raise Unwell(str(error), f"{MANAGE} init") from error
    if public != on_file:
        raise Unwell(f"{keys.public_path()} does not belong to platform.key", "restore the pair")
    return f"public key {public[:16]}..."


def repository() -> str:
    """The living repository of mechanisms."""
    try:
        living = branches.living()
        if not living.exists():
            raise Unwell(f"{living.path} is not there", f"{MANAGE} init")
        head = living.head()
        found = living.library(head)
    except branches.RepositoryError as error:
        raise Unwell(str(error), f"{MANAGE} init") from error
    return f"main at {head[:12]}, {len(found)} mechanisms"


def library() -> str:
    """The approved operators, each with a signature that holds."""
    good, bad = operators.approved()
    if wrong := operators.problems():
        raise Unwell("; ".join(wrong), "see /operators/: revoke the entry, and find out who did it")
    if not good and not bad:
        raise Unwell("no operator is approved", f"{MANAGE} init")
    out = f", {len(bad)} taken back" if bad else ""
    return f"{len(good)} approved operators, signed{out}"


def advisories() -> str:
    """The snapshot of advisories against the policy's freshness."""
    fix = f"{MANAGE} update_advisories FILE"
    try:
        words, old = provenance.snapshot()
    except (SnapshotError, OSError) as error:
        raise Unwell(f"the snapshot can't be read: {error}", fix) from error
    force = standing.in_force()
    shown = force.policy is not None and force.policy.checks.freshness.otherwise == "show"
    if old and not shown:
        raise Unwell(words, fix)
    return f"{words}; the policy in force only shows this: {fix}" if old else words


def policy() -> str:
    """A policy is in force and can be read."""
    force = standing.in_force()
    if force.policy is None or force.version is None:
        raise Unwell(force.problem, f"{MANAGE} init (or load_policy FILE --by USER)")
    return f"{force.version.digest[:12]}, mode {force.mode}, until {force.policy.expires}"


def audit_log() -> str:
    """The whole log verifies."""
    said = io.StringIO()
    fix = "keep a copy of the database, and find out who did it"
    try:
        call_command("verify_audit", stdout=said, no_color=True)
    except CommandError as error:  # it could not look: the message says why
        raise Unwell(str(error), f"{MANAGE} verify_audit, once that is put right") from error
    except SystemExit as end:
        raise Unwell(" ".join(said.getvalue().split())[:400] or f"exit {end.code}", fix) from end
    return said.getvalue().strip().splitlines()[-1]


def worker() -> str:
    """The worker's last sign of life."""
    beat = settings.VAR / sweeps.BEAT
    age = time.time() - beat.stat().st_mtime if beat.exists() else None
    if age is None or age > BEAT_SECONDS:
        words = "it never ran" if age is None else f"silent for {age:.0f} s"
        raise Unwell(words, f"{START} work)")
    return f"alive {age:.0f} s ago"


def runners() -> str:
    """Each runner's last sign of life."""
    known = list(Runner.objects.filter(revoked_at=None).select_related("target"))
    if not known:
        raise Unwell("no runner is registered", f"{START} register_runner NAME --target T ...)")
    silent = [r.name for r in known if r.seen_at is None or standing.is_stale(r)]
    if silent:
        raise Unwell(
            f"silent: {', '.join(silent)}", "start it: python -m runner run --platform FILE"
        )
    refused = [r for r in known if r.observed_state == "refused"]
    for runner in refused:
        raise Unwell(
            f"{runner.name} could not load v{runner.observed_version}: {runner.observed_reason}",
            f"see /targets/{runner.target.name}/ and roll back",
        )
    return ", ".join(f"{r.name}: {r.activity or r.observed_state}" for r in known)


PARTS: tuple[tuple[str, Callable[[], str]], ...] = (
    ("Python", python),
    ("dependencies", dependencies),
    ("disk", disk),
    ("database", database),
    ("triggers", triggers),
    ("signing key", signing_key),
    ("repository", repository),
    ("policy", policy),
    ("operators", library),
    ("advisories", advisories),
    ("audit log", audit_log),
    ("worker", worker),
    ("runners", runners),
)


SERVING = ("database", "triggers", "signing key", "repository", "policy")  # not without these


def look(
    progress: Callable[[str], None] = lambda _: None,
    *,
    sandbox: bool = True,
    only: Collection[str] = (),
) -> Iterator[Look]:
    """Look at every part, the sandbox last because it takes longest; or `only` at those named."""
    for part, ask in PARTS:
        if only and part not in only:
            continue
        try:
            yield Look(part=part, words=ask())
        except Unwell as unwell:
            yield Look(part=part, words=str(unwell), fix=unwell.fix)
        except DatabaseError as error:
            first = str(error).splitlines()[0]
            yield Look(part=part, words=first, fix=f"{MANAGE} migrate")
    if only or not sandbox:
        return
    for control in sandbox_doctor.examine(progress):
        fix = "" if control.ok else control.what_to_do or "python -m sandbox doctor"
        yield Look(part="sandbox", words=control.control, fix=fix)
