"""Copies of a person's folder for trials: bounded, verified, and never the folder itself.

A `Snapshot` is taken once when a run begins; each trial gets a fresh copy of it, so that neither
what a trial writes nor what a person edits meanwhile reaches the next trial. Links are resolved
so that nothing in a copy leads back into the folder. It runs nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runner.storage.store import DATABASE
from runner.tasks.base import TaskError
from sandbox.files import put

MAX_FILES = 20_000
MAX_BYTES = 2 * 1024**3
MAX_SHARED_FILES = 200_000  # looked at after each trial: about 1 s
CHUNK = 1024 * 1024
PARTIAL = ".escapement-copy"  # the one name that may be removed: it is nobody else's
# Neither part of what is measured nor small. A virtual environment is named by --command.
LEFT_OUT = frozenset(
    {".git", ".hg", ".svn", ".venv", "venv", "node_modules", "__pycache__"}
    | {".mypy_cache", ".pytest_cache", ".ruff_cache", ".ipynb_checkpoints", ".DS_Store"}
)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing in a folder: a `file` (its SHA-256), a `folder`, or a `link` (its target)."""

    kind: str
    value: str = ""
    executable: bool = False

    def line(self) -> str:
        """As text for a digest."""
        return f"{self.kind}:{self.value}:{int(self.executable)}"


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder as it was seen: its items by relative path, in order."""

    root: Path
    items: Mapping[str, Item]
    shared: Mapping[str, str]  # paths that trials share, with a fingerprint of names and sizes

    @property
    def lines(self) -> dict[str, str]:
        """Everything as text, for digests and comparisons."""
        return {path: item.line() for path, item in self.items.items()} | {
            path: f"shared:{value}" for path, value in self.shared.items()
        }

    def copies(self, name: str) -> bool:
        """Whether a copy has a file of its own there: writing to it reaches nothing else."""
        item = self.items.get(name)
        if item is not None and item.kind == "link":
            path = real(self.root / name)
            inside = path.is_relative_to(self.root)
            item = self.items.get(path.relative_to(self.root).as_posix()) if inside else None
        return item is not None and item.kind == "file"


def real(path: Path) -> Path:
    """Where a path leads; links in a circle stay as they are."""
    return Path(os.path.realpath(path))


def within(root: Path, name: str) -> str:
    """How a script is called within `root`, a real path; it may be given with its whole path, or
    through a link to a folder there. Raises TaskError."""
    path = Path(os.path.normpath(root / name))
    path = real(path.parent) / path.name
    if not path.is_relative_to(root):
        raise TaskError(f"the script {name!r} is not within {root}")
    return path.relative_to(root).as_posix()


def startable(words: list[str], root: Path) -> list[str]:
    """A command's words; a program in what no copy has, such as a virtual environment within
    `root`, by its whole path."""
    apart = LEFT_OUT.intersection(Path(words[0]).parts)
    return [str(root / words[0]), *words[1:]] if apart else words


def look(root: Path, *, share: Collection[str] = (), without: Collection[Path] = ()) -> Folder:
    """See a folder: hash every file. `share` names paths that are too large to copy; `without`
    are folders of ours that may lie within: they, other runs' folders, and folders that hold
    nothing else are no part of it. Raises TaskError over the limits."""
    if not root.is_dir():
        raise TaskError(f"{root} is not a folder: give --dir the folder with the script")
    root = real(root)
    ours = {real(path) for path in without}
    if root in ours:
        raise TaskError(f"{root} stays as it is: give --out another folder")
    names = {os.path.normpath(name) for name in share}
    inner = {name for name in names if names & {str(parent) for parent in Path(name).parents}}
    shared = {name: _shared(root, name) for name in sorted(names - inner)}
    apart = {root / name for name in shared}
    items: dict[str, Item] = {}
    total = 0
    weights: defaultdict[str, float] = defaultdict(float)  # of each part, as share of the limits
    for path in _walk(root, ours, apart):
        relative = path.relative_to(root).as_posix()
        try:
            item, size = _item(path, root, MAX_BYTES - total)
        except OSError as error:
            raise TaskError(f"{path} can't be read: {error.strerror}") from None
        items[relative] = item
        total += size
        weights[relative.partition("/")[0]] += size / MAX_BYTES + 1 / MAX_FILES
        if len(items) > MAX_FILES or total > MAX_BYTES:
            largest = max(weights, key=weights.__getitem__)
            raise TaskError(
                f"{root} holds over {MAX_FILES} files or {MAX_BYTES // 1024**3} GiB, too much to "
                f"copy for every trial. The most is in {largest}: if trials only read it, a "
                f"space.yaml that says `share: [{json.dumps(largest, ensure_ascii=False)}]` lets "
                "them have it without a copy"
            )
    around = {parent for own in ours for parent in own.parents}  # what they need is made anyway
    seen = {n: i for n, i in items.items() if i.kind != "folder" or root / n not in around}
    return Folder(root=root, items=seen, shared=shared)


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The paths that differ between two folders' lines."""
    return sorted(p for p in before.keys() | now.keys() if before.get(p) != now.get(p))


def _walk(root: Path, ours: set[Path], apart: set[Path]) -> Iterator[Path]:
    """What is below `root` but not in `ours` or `apart`; runs on the way are added to `ours`."""

    def failed(error: OSError) -> None:
        raise TaskError(f"{error.filename} can't be read: {error.strerror}")

    for folder, names, files in os.walk(root, onerror=failed):
        here = Path(folder)
        ours |= {here / name for name in names if (here / name / DATABASE).is_file()}
        skipped = ours | apart
        kept = sorted(n for n in names if n not in LEFT_OUT and here / n not in skipped)
        names[:] = [n for n in kept if not (here / n).is_symlink()]
        linked = [n for n in kept if (here / n).is_symlink()]
        for name in sorted([*files, *linked, *names]):
            if name not in LEFT_OUT and here / name not in skipped:
                yield here / name


def _item(path: Path, root: Path, room: int) -> tuple[Item, int]:
    """What is at `path`, and its size in bytes. A link to a file elsewhere is that file; a link
    within the folder leads to the copy's own part; any other link is kept as it is."""
    info = path.lstat()
    if stat.S_ISLNK(info.st_mode):
        target = real(path)
        if target == path:  # a circle: it leads nowhere in the copy as well
            return Item(kind="link", value=os.readlink(path)), 0
        if target.is_relative_to(root):
            return Item(kind="link", value=os.path.relpath(target, path.parent)), 0
        if not target.is_file():
            return Item(kind="link", value=str(target)), 0
        info = target.stat()
    if stat.S_ISDIR(info.st_mode):
        return Item(kind="folder"), 0
    if not stat.S_ISREG(info.st_mode):
        raise TaskError(f"{path} is neither a file nor a folder: move it out of there")
    if info.st_size > room:
        return Item(kind="file"), info.st_size  # over the limit: not worth reading
    executable = bool(info.st_mode & stat.S_IXUSR)
    return Item(kind="file", value=_sha256(path), executable=executable), info.st_size


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shared(root: Path, name: str) -> str:
    """Names, sizes and times below a shared path, as one digest. Raises TaskError."""
    path = root / name
    inside = Path(os.path.normpath(path)).is_relative_to(root) and name not in ("", ".")
    if Path(name).is_absolute() or not inside or not path.exists():
        raise TaskError(f"share: {name!r} is nothing within {root}: name a file or folder of it")
    seen = hashlib.sha256()
    try:
        for number, file in enumerate(_files(path)):
            if number >= MAX_SHARED_FILES:
                why = f"has over {MAX_SHARED_FILES} files: share its parts, or pack them"
                raise TaskError(f"share: {name!r} {why}")
            info = os.stat(file)
            seen.update(os.fsencode(os.path.relpath(file, path)))
            seen.update(f":{info.st_size}:{info.st_mtime_ns}\n".encode())
    except OSError as error:
        raise TaskError(f"share: {error.filename} can't be read: {error.strerror}") from None
    return seen.hexdigest()


def _files(path: Path) -> Iterator[str]:
    """The files at or below a path, in order; what is no file is passed over. Raises OSError."""

    def failed(error: OSError) -> None:
        raise error

    if not path.is_dir():
        yield str(path)
        return
    for folder, names, files in os.walk(path, onerror=failed):
        names.sort()
        places = (os.path.join(folder, name) for name in sorted(files))
        yield from (place for place in places if os.path.isfile(place))


class Snapshot:
    """A copy of a folder at `place`, from which trials get theirs."""

    def __init__(self, folder: Folder, place: Path) -> None:
        self.folder = folder
        self.place = place

    @property
    def _manifest(self) -> Path:
        return self.place.parent / f"{self.place.name}.json"

    def check(self) -> bool:
        """Whether an earlier start of the same run made the copy.

        Raises TaskError where the folder is not what the run began with, naming what changed, and
        where something else is in the copy's place.
        """
        if not self._manifest.is_file():
            if os.path.lexists(self.place):
                raise TaskError(
                    f"{self.place} is there already, and no run made it: give --out a folder of "
                    "its own, which need not exist"
                )
            return False
        try:
            before = dict(json.loads(self._manifest.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise TaskError(
                f"{self._manifest} can't be read ({error}): start another run with another --out"
            ) from None
        if different := changes(before, self.folder.lines):
            named = ", ".join(different[:5]) + (" and more" if len(different) > 5 else "")
            raise TaskError(
                f"{self.folder.root} is not what this run began with: {named} changed. Put it "
                "back, or start another run with another --out"
            )
        return self.place.is_dir()  # else it ended before the copy was put in its place

    def take(self) -> None:
        """Make the copy if it is not there. Raises TaskError as `check` does, or where the copy
        can't be made."""
        if self.check():
            return
        try:
            self._take()
        except (Changed, OSError) as error:
            way_out = (
                "" if isinstance(error, Changed) else ". Free some space, or choose another --out"
            )
            raise TaskError(
                f"{self.folder.root} can't be copied to {self.place}: {error}{way_out}"
            ) from None

    def _take(self) -> None:
        self.place.parent.mkdir(parents=True, exist_ok=True)
        partial = self.place.with_name(PARTIAL)
        discard(partial)
        copy(self.folder, self.folder.root, partial)
        put(self._manifest, json.dumps(self.folder.lines, indent=0).encode(), mode=0o644)
        partial.rename(self.place)

    def fresh(self, target: Path) -> None:
        """A copy for one trial. Raises Changed where the snapshot or a shared path is not what
        it was."""
        copy(self.folder, self.place, target)

    def check_shared(self) -> None:
        """Raises Changed where a shared path is not what it was when the run began."""
        for name, before in self.folder.shared.items():
            if _shared(self.folder.root, name) != before:
                raise Changed(
                    f"the shared {name} changed while trials ran: trials can't be compared. What "
                    "is shared may only be read: leave it out of `share`, or write elsewhere"
                )


class Changed(RuntimeError):
    """What trials are made of is not what it was; the message says what."""


def copy(folder: Folder, source: Path, target: Path) -> None:
    """Copy `folder`, as it was seen, from `source` (it, or a copy of it) to a new `target`.

    Raises Changed where a file there is not the one that was seen, and OSError.
    """
    target.mkdir(parents=True)
    for name, item in folder.items.items():
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if item.kind == "folder":
            place.mkdir(exist_ok=True)
        elif item.kind == "link":
            place.symlink_to(item.value)
        else:
            _copy_file(source / name, place, item)
    for name in folder.shared:
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(folder.root / name)


def _copy_file(source: Path, place: Path, item: Item) -> None:
    seen = hashlib.sha256()
    with source.open("rb") as old, place.open("xb") as new:
        while data := old.read(CHUNK):
            seen.update(data)
            new.write(data)
    if seen.hexdigest() != item.value:
        raise Changed(f"{source} changed since the run began: put it back, or start another run")
    place.chmod(0o755 if item.executable else 0o644)


def discard(folder: Path) -> None:
    """Remove a copy, whatever a trial made of its permissions. Links are never followed."""

    def again(function: Callable[[str], object], path: str, _error: object) -> None:
        Path(path).parent.chmod(0o700)
        if not Path(path).is_symlink():
            Path(path).chmod(0o700)
        function(path)

    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder, onerror=again)
