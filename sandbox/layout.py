"""What lies in the image's own folder: the lock's packages and our files, tidied and compiled.

The same inputs give the same bytes: no script of a package, no file that Python would run by
itself, nothing that tells where or when it was installed; byte code is made by a fresh process
with a fixed order. Used by the image and by the root folder of backends without an engine.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from sandbox import wheels
from sandbox.errors import InfrastructureError
from sandbox.lock import Lock

PLACE = "opt/sandbox/"
COMPILE_SECONDS = 600
# Folders of packages that nothing imports; a sixth of the image. numpy's own are small and used.
LEFT_OUT = ("scipy/**/tests", "sklearn/**/tests")
# What pip puts there for a shell, for a build, or to remember itself.
_NOT_OURS = ("bin", "share", "etc", "include", "lib", "man")
_PIPS = ("INSTALLER", "REQUESTED", "direct_url.json", "entry_points.txt")


def fill_site(site: Path, lock: Lock, progress: Callable[[str], None]) -> None:
    """The packages of a lock and our own files, into an empty folder. Raises WheelError."""
    with tempfile.TemporaryDirectory(prefix="escapement-wheels-") as place:
        folder = Path(place)
        progress(f"gathering {len(lock.pins)} wheels")
        fetched = wheels.gather(lock, folder)
        if fetched:
            progress(f"fetched {', '.join(pin.line for pin in fetched)}")
        progress(f"installing {', '.join(lock.lines())}")
        wheels.install(lock, folder, site)
    tidy(site)
    copy_ours(site)


def tidy(site: Path) -> None:
    """Take out what must not lie there; InfrastructureError where packages clash."""
    for name in _NOT_OURS:
        shutil.rmtree(site / name, ignore_errors=True)
    for pattern in LEFT_OUT:
        for folder in sorted(site.glob(pattern), reverse=True):  # the inner ones first
            shutil.rmtree(folder)
    for path in sorted(site.rglob("*.pth")):
        path.unlink()
    owners: dict[str, str] = {}
    for information in sorted(site.glob("*.dist-info")):
        for name in _PIPS:
            (information / name).unlink(missing_ok=True)
        _tidy_record(site, information, owners)
    if (site / "sandbox").exists() or (site / "mechanisms").exists():
        raise InfrastructureError("A package of the lock brings our own `sandbox`: refused.")


def _tidy_record(site: Path, information: Path, owners: dict[str, str]) -> None:
    """Its list of files without what was taken out, each file one package's alone."""
    record = information / "RECORD"
    try:
        rows = sorted(csv.reader(io.StringIO(record.read_text("utf-8"))))
    except (OSError, ValueError, csv.Error) as error:
        raise InfrastructureError(f"{information.name}: no list of its files: {error}") from error
    kept = [row for row in rows if row and (site / row[0]).is_file() and ".." not in row[0]]
    for path, *_ in kept:
        other = owners.setdefault(path, information.name)
        if other != information.name:
            raise InfrastructureError(
                f"{other} and {information.name} both bring {path}: one would write over the other."
            )
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(kept)
    record.write_text(text.getvalue(), "utf-8")


def copy_ours(site: Path) -> None:
    """Our files of the inside half, below `site`."""
    from sandbox import image  # noqa: PLC0415 - it puts this module's work together

    (site / "sandbox").mkdir()
    for name in image.OURS:
        shutil.copyfile(image.ROOT / "sandbox" / f"{name}.py", site / "sandbox" / f"{name}.py")


def compile_folder(folder: Path) -> None:
    """Byte code beside the sources: the sandbox can write none, and would compile at each start.

    In a process of its own: byte code tells which of its strings the process knew already.
    """
    command = [sys.executable, "-S", "-s", "-P", "-m", "compileall", "-qq", "-r", "32", "-j", "1"]
    command += ["--invalidation-mode", "unchecked-hash", "-s", str(folder), str(folder)]
    environment = {"PATH": os.environ.get("PATH", ""), "PYTHONHASHSEED": "0"}
    try:
        # What can't be compiled (templates, tests of syntax) stays as it is: exit 1 says no more.
        done = subprocess.run(  # noqa: S603 - fixed words and a folder of ours
            command, capture_output=True, check=False, timeout=COMPILE_SECONDS, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InfrastructureError(f"{folder} could not be compiled: {error}") from error
    if done.returncode not in (0, 1):
        said = done.stderr.decode("utf-8", "replace")[-300:]
        raise InfrastructureError(f"{folder} could not be compiled ({done.returncode}): {said}")
