"""The command about the image: build it, take a lock over, compare, remove old ones.

python -m sandbox image [--lock FILE | --verify | --explain A B | --prune [--keep ID] [--dry-run]]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from sandbox import archive, compare, image, pruning
from sandbox import lock as locks
from sandbox.backends import engine, get_backend, images
from sandbox.errors import InfrastructureError

DIFFERENT = 1
Progress = Callable[[str], None]


def add_parser(commands: Any) -> None:
    """Add the command."""
    one = commands.add_parser("image", help="build the sandbox image, if it is missing")
    way = one.add_mutually_exclusive_group()
    way.add_argument(
        "--lock", type=Path, metavar="FILE", help="take over the platform's lock, and build it"
    )
    way.add_argument(
        "--seed-lock", action="store_true", help="go back to the lock of a new installation"
    )
    way.add_argument(
        "--verify",
        action="store_true",
        help="build it again and compare: exit 0 the same, 1 different, each difference said",
    )
    way.add_argument(
        "--explain", nargs=2, metavar=("A", "B"), help="compare two images that the engine has"
    )
    way.add_argument(
        "--prune",
        action="store_true",
        help="remove old sandbox images that nothing uses (on the platform's machine: "
        "manage.py prune_images, which knows what evidence needs)",
    )
    one.add_argument("--keep", action="append", default=[], metavar="ID", help="with --prune")
    one.add_argument("--days", type=float, default=pruning.DAYS, help="with --prune: younger stay")
    one.add_argument("--dry-run", action="store_true", help="with --prune: only say what would go")


def command(arguments: argparse.Namespace, progress: Progress) -> int:
    """Do what was asked for; the exit code."""
    out = Console(soft_wrap=True, highlight=False)

    def tell(line: str) -> None:
        out.print(line, markup=False)

    if arguments.verify:
        return _verify(tell, progress)
    if arguments.explain:
        return _explain(arguments.explain, tell)
    if arguments.prune:
        now = datetime.now(UTC)
        pruning.prune(
            engine.connect(),
            wanted=arguments.keep,
            now=now,
            days=arguments.days,
            really=not arguments.dry_run,
            tell=tell,
        )
        return 0
    if arguments.seed_lock:
        locks.forget()
    if arguments.lock:
        _take_over(arguments.lock, progress)
    tell(get_backend(progress=progress).image_id)
    return 0


def _take_over(file: Path, progress: Progress) -> None:
    """A lock that the platform gave out. The image is built before it is in force here."""
    try:
        with file.open("rb") as opened:
            data = opened.read(locks.MAX_LOCK_BYTES + 1)
    except OSError as error:
        raise InfrastructureError(f"{file} can't be read: {error.strerror or error}") from error
    lock = locks.parse(data)
    with locks.using(lock):
        get_backend(progress=progress)
    locks.keep(lock)
    progress(f"the lock here is now {lock.digest[:12]}, {len(lock.pins)} packages")


def _verify(tell: Progress, progress: Progress) -> int:
    client = engine.connect()
    name = image.tag()
    there = image.ensure_image(progress)
    with tempfile.TemporaryDirectory(prefix="escapement-verify-") as place:
        folder = Path(place)
        (folder / "again").mkdir()
        made = image.make(client, folder / "again", progress)
        if made.image_id == there:
            tell(f"the same: {name} is {there}, built again to the byte")
            return 0
        before = images.saved(client, name, folder / "there.tar")
        after = archive.read(made.path, "built again")
        lines = compare.differences(before, after)
        if not lines:  # an engine that names images by something else than their description
            tell(f"the same: every file and setting of {name}; this engine counts its id otherwise")
            return 0
    tell(f"different: {name} is {there}, built again it is {made.image_id}")
    for line in lines:
        tell(f"  {line}")
    return DIFFERENT


def _explain(references: list[str], tell: Progress) -> int:
    client = engine.connect()
    for reference in references:
        if images.description(client, reference) is None:
            raise InfrastructureError(
                f"The engine has no image {reference}: it was removed, or never built here."
            )
    with tempfile.TemporaryDirectory(prefix="escapement-explain-") as place:
        saved = [
            images.saved(client, reference, Path(place, f"{number}.tar"))
            for number, reference in enumerate(references)
        ]
        lines = compare.differences(saved[0], saved[1])
    for line in lines or ["the same: every input, setting and file"]:
        tell(line)
    return DIFFERENT if lines else 0
