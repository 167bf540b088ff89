"""The mechanisms repository: the only file that knows git.

The living repository is bare and made from the seed folder. A draft is a commit on
`proposals/ID`; merging is a compare-and-swap of `main` to exactly that commit, so that the tested
tree is the merged tree. Every argument is fixed or checked against a pattern: nothing that a model
wrote is ever a ref, an option, a path outside the pattern, or a URL. Hooks, filters and the
configuration of users are off. Who may commit or merge is decided elsewhere (`lifecycle`).
"""

from __future__ import annotations

import functools
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from django.conf import settings
from git import Git
from git.exc import GitCommandError

MAIN = "refs/heads/main"
AUDIT_ANCHOR = "refs/escapement/audit"
IMAGE_LOCK = "refs/escapement/image-lock"
IDENTITY = "Escapement <platform@escapement.invalid>"
GIT_SECONDS = 60
MAX_SEED_FILES = 500

_HEX40 = re.compile(r"[0-9a-f]{40}")
_PATH = re.compile(r"(?:(?:mechanisms|tests)/)?[A-Za-z0-9][A-Za-z0-9_]*\.(?:py|md|txt|json|toml)")
_DRAFT_PATH = re.compile(r"mechanisms/[a-z][a-z0-9_]{0,59}\.py|tests/test_[a-z][a-z0-9_]{0,59}\.py")
_NULL = "0" * 40
_QUIETLY = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "gc.auto=0")
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_COUNT": "0",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_AUTHOR_NAME": "Escapement",
    "GIT_AUTHOR_EMAIL": "platform@escapement.invalid",
    "GIT_COMMITTER_NAME": "Escapement",
    "GIT_COMMITTER_EMAIL": "platform@escapement.invalid",
    "HOME": "/nonexistent",
    "LC_ALL": "C",
}


class RepositoryError(RuntimeError):
    """The repository is missing, broken, or was asked for what it does not have."""


class Moved(RepositoryError):
    """A compare-and-swap lost: the ref is no longer what the caller saw."""


@dataclass(frozen=True, kw_only=True)
class Committed:
    """What a commit pinned down."""

    commit: str
    tree: str


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One mechanism of the repository with its test (empty where it has none)."""

    name: str
    path: str
    source: bytes
    test: bytes


@dataclass(frozen=True)
class Repository:
    """One bare repository. Cheap to make; every method is one or a few git processes."""

    path: Path

    # --- making it ---

    def init(self, seed: Path) -> str:
        """Make the bare repository from the seed's files, once. The commit of `main`."""
        if self.exists():
            return self.head()
        if self.path.exists() and any(self.path.iterdir()):
            raise RepositoryError(f"{self.path} is there but has no main: move it away")
        files = _seed_files(seed)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix="mechanisms-", dir=self.path.parent))
        try:
            fresh = Repository(work)
            fresh._git("init", "--bare", "--quiet", "--template=", "--initial-branch=main", work)
            tree = fresh._tree(None, files)
            commit = fresh._commit(tree, parent=None, message="Seed of the mechanisms repository")
            fresh._swap(MAIN, commit, _NULL)
            if self.path.exists():
                self.path.rmdir()
            work.rename(self.path)  # all or nothing: a half-made repository is never seen
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
        return self.head()

    def exists(self) -> bool:
        """Whether the repository is there and has a `main`."""
        return (self.path / "HEAD").is_file() and self._ref(MAIN) is not None

    # --- reading ---

    def head(self) -> str:
        """The commit of `main`."""
        commit = self._ref(MAIN)
        if commit is None:
            raise RepositoryError(f"{self.path} has no main: run `manage.py init`")
        return commit

    def first(self) -> str:
        """The commit that `main` began with: the seed."""
        return _hex(self._text("rev-list", "--max-parents=0", MAIN, "--"))

    def tree_of(self, commit: str) -> str:
        """The tree of a commit."""
        return self._text("rev-parse", "--verify", "--quiet", f"{_hex(commit)}^{{tree}}")

    def parent_of(self, commit: str) -> str:
        """The first parent of a commit; raises where it has none."""
        return self._text("rev-parse", "--verify", "--quiet", f"{_hex(commit)}^1")

    def paths(self, commit: str) -> dict[str, str]:
        """Path -> blob of every file at a commit."""
        return dict(_listing(self.path, _hex(commit)))

    def read(self, commit: str, path: str) -> bytes:
        """The exact bytes of one file at a commit."""
        blob = self.paths(commit).get(_safe(path))
        if blob is None:
            raise RepositoryError(f"{path} does not exist at {commit[:12]}")
        return _blob(self.path, blob)

    def changed(self, base: str, commit: str) -> dict[str, bytes | None]:
        """Path -> bytes of every file in which `commit` differs from `base`; None if removed."""
        before, after = self.paths(base), self.paths(commit)
        names = sorted(p for p in before.keys() | after.keys() if before.get(p) != after.get(p))
        return {p: _blob(self.path, after[p]) if p in after else None for p in names}

    def diff(self, base: str, commit: str) -> str:
        """The unified diff from `base` to `commit`, undecodable bytes replaced."""
        arguments = ("diff-tree", "-p", "-r", "--no-color", "--no-ext-diff", "--no-textconv")
        out = self._git(*arguments, "--no-renames", _hex(base), _hex(commit), "--")
        return out.decode("utf-8", "replace")

    def library(self, commit: str) -> dict[str, Operator]:
        """Every mechanism at a commit, by name."""
        blobs = self.paths(commit)
        contents = _contents(self.path, tuple(sorted(set(blobs.values()))))
        found = {}
        for path in blobs:
            if not path.startswith("mechanisms/") or not path.endswith(".py"):
                continue
            name = path.removeprefix("mechanisms/").removesuffix(".py")
            test = blobs.get(f"tests/test_{name}.py")
            found[name] = Operator(
                name=name,
                path=path,
                source=contents[blobs[path]],
                test=contents[test] if test else b"",
            )
        return found

    def branch(self, proposal_id: int) -> str | None:
        """The commit of a proposal's branch, if it has one."""
        return self._ref(_branch_ref(proposal_id))

    # --- writing ---

    def commit_draft(
        self, *, proposal_id: int, base: str, files: Mapping[str, bytes], name: str
    ) -> Committed:
        """Commit a draft's files on top of `base` and point the proposal's branch at it.

        What the branch named before stays reachable below `refs/archive/`.
        """
        for path in files:
            if not _DRAFT_PATH.fullmatch(path):
                raise RepositoryError(f"{path!r} is no path of a draft")
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,59}", name):
            raise RepositoryError(f"{name!r} is no name of a mechanism")
        tree = self._tree(_hex(base), files)
        commit = self._commit(tree, parent=base, message=f"Proposal {proposal_id:d}: {name}")
        ref = _branch_ref(proposal_id)
        if (earlier := self._ref(ref)) is not None:
            self._git("update-ref", f"refs/archive/{proposal_id:d}/{earlier}", earlier)
        self._swap(ref, commit, earlier or _NULL)
        return Committed(commit=commit, tree=tree)

    def fast_forward(self, *, old: str, new: str) -> None:
        """Compare-and-swap `main` from `old` to its direct child `new`. Raises Moved."""
        if self.parent_of(new) != _hex(old):
            raise Moved(f"{new[:12]} is not built on {old[:12]}: screen it on the new base")
        self._swap(MAIN, new, old)

    def contains(self, commit: str) -> bool:
        """Whether `main` contains a commit."""
        try:
            self._git("merge-base", "--is-ancestor", _hex(commit), self.head())
        except RepositoryError:
            return False
        return True

    def anchor(self, note: bytes) -> str:
        """Keep an audit checkpoint under a ref of its own, as a chain of commits."""
        return self._keep(AUDIT_ANCHOR, "checkpoint", note, "Audit checkpoint")

    def anchored(self) -> bytes | None:
        """The last anchored checkpoint."""
        return self._kept(AUDIT_ANCHOR, "checkpoint")

    def keep_lock(self, data: bytes, message: str) -> str:
        """Keep the sandbox image's lock under a ref of its own, as a chain of commits."""
        return self._keep(IMAGE_LOCK, "lock.json", data, message)

    def kept_lock(self) -> bytes | None:
        """The last lock that was kept."""
        return self._kept(IMAGE_LOCK, "lock.json")

    def _keep(self, ref: str, name: str, data: bytes, message: str) -> str:
        tree = self._mktree([("100644", "blob", self._write_blob(data), name)])
        earlier = self._ref(ref)
        commit = self._commit(tree, parent=earlier, message=message)
        self._swap(ref, commit, earlier or _NULL)
        return commit

    def _kept(self, ref: str, name: str) -> bytes | None:
        commit = self._ref(ref)
        return None if commit is None else self._git("cat-file", "blob", f"{commit}:{name}")

    # --- plumbing ---

    def _git(self, *arguments: str | Path, feed: bytes = b"") -> bytes:
        command = ["git", f"--git-dir={self.path}", *_QUIETLY, *(str(a) for a in arguments)]
        with tempfile.TemporaryFile() as stdin:
            stdin.write(feed)
            stdin.seek(0)
            try:
                out = Git(str(self.path.parent)).execute(
                    command,
                    istream=stdin,
                    env=_ENVIRONMENT,
                    stdout_as_string=False,
                    strip_newline_in_stdout=False,
                    kill_after_timeout=GIT_SECONDS,
                )
            except GitCommandError as error:
                raise RepositoryError(
                    f"git {arguments[0]} failed in {self.path}: {error.stderr.strip()[:300]}"
                ) from error
        if not isinstance(out, bytes):
            raise RepositoryError(f"git {arguments[0]} gave no bytes")
        return out

    def _text(self, *arguments: str) -> str:
        return self._git(*arguments).decode("ascii").strip()

    def _ref(self, ref: str) -> str | None:
        """The commit of a ref. One in a file of its own is read without a process: git itself
        looks there first."""
        with suppress(OSError, ValueError):
            commit = (self.path / ref).read_text(encoding="ascii").strip()
            if _HEX40.fullmatch(commit):
                return commit
        try:
            return _hex(self._text("rev-parse", "--verify", "--quiet", ref))
        except RepositoryError:
            if not (self.path / "objects").is_dir():
                raise
            return None

    def _swap(self, ref: str, new: str, old: str) -> None:
        try:
            self._git("update-ref", ref, _hex(new), _hex(old))
        except RepositoryError as error:
            raise Moved(f"{ref} is no longer {old[:12]}") from error

    def _write_blob(self, data: bytes) -> str:
        return self._git("hash-object", "-w", "--no-filters", "--stdin", feed=data).decode().strip()

    def _mktree(self, entries: list[tuple[str, str, str, str]]) -> str:
        lines = b"".join(
            f"{mode} {kind} {sha}\t{name}\0".encode() for mode, kind, sha, name in entries
        )
        return self._git("mktree", "-z", feed=lines).decode().strip()

    def _tree(self, base: str | None, files: Mapping[str, bytes]) -> str:
        """The tree of `base` with `files` put in; folders are one level deep at most."""
        blobs = self.paths(base) if base else {}
        blobs |= {_safe(path): self._write_blob(data) for path, data in files.items()}
        folders: dict[str, list[tuple[str, str, str, str]]] = {"": []}
        for path, sha in blobs.items():
            folder, _, name = path.rpartition("/")
            folders.setdefault(folder, []).append(("100644", "blob", sha, name))
        top = folders.pop("")
        top += [("040000", "tree", self._mktree(rows), name) for name, rows in folders.items()]
        return self._mktree(top)

    def _commit(self, tree: str, *, parent: str | None, message: str) -> str:
        arguments = ["commit-tree", "--no-gpg-sign", _hex(tree)]
        if parent is not None:
            arguments += ["-p", _hex(parent)]
        return self._git(*arguments, feed=message.encode()).decode().strip()


def living() -> Repository:
    """The living repository that the settings name."""
    return Repository(Path(settings.MECHANISMS_REPOSITORY))


def branch_name(proposal_id: int) -> str:
    """The name of a proposal's branch."""
    return f"proposals/{proposal_id:d}"


def _branch_ref(proposal_id: int) -> str:
    return f"refs/heads/{branch_name(proposal_id)}"


def _hex(commit: str) -> str:
    if not _HEX40.fullmatch(commit):
        raise RepositoryError(f"{commit!r} is no object name")
    return commit


def _safe(path: str) -> str:
    if not _PATH.fullmatch(path):
        raise RepositoryError(f"{path!r} is no path of the mechanisms repository")
    return path


@functools.lru_cache(maxsize=256)
def _listing(repository: Path, commit: str) -> tuple[tuple[str, str], ...]:
    """Files of a commit. Cached: what an object name names never changes."""
    out = Repository(repository)._git("ls-tree", "-r", "-z", commit)
    rows = []
    for line in out.split(b"\0"):
        if line:
            head, _, path = line.decode("utf-8", "surrogateescape").partition("\t")
            rows.append((path, head.split(" ")[2]))
    return tuple(rows)


@functools.lru_cache(maxsize=8)
def _contents(repository: Path, blobs: tuple[str, ...]) -> Mapping[str, bytes]:
    """The bytes of several blobs, from one process."""
    feed = "".join(f"{_hex(sha)}\n" for sha in blobs).encode("ascii")
    rest = Repository(repository)._git("cat-file", "--batch", feed=feed)
    found = {}
    for sha in blobs:
        head, _, rest = rest.partition(b"\n")
        said = head[:100].decode("ascii", "replace")
        match said.split(" "):
            case [name, "blob", size] if name == sha and len(rest) > int(size):
                found[sha], rest = rest[: int(size)], rest[int(size) + 1 :]
            case _:
                raise RepositoryError(f"{repository} gives no blob {sha}: {said!r}")
    return MappingProxyType(found)


@functools.lru_cache(maxsize=512)
def _blob(repository: Path, sha: str) -> bytes:
    return Repository(repository)._git("cat-file", "blob", _hex(sha))


def _seed_files(seed: Path) -> dict[str, bytes]:
    """The seed's plain files; anything that the pattern does not know is refused."""
    files = {}
    for path in sorted(seed.rglob("*")):
        parts = path.relative_to(seed).parts
        name = "/".join(parts)
        # Caches of tools that ran there (`__pycache__`, `.pytest_cache` ...) are no part of it.
        if path.is_dir() or any(p == "__pycache__" or p.startswith(".") for p in parts):
            continue
        if path.is_symlink():
            raise RepositoryError(f"{path} is a link: the seed has plain files only")
        files[_safe(name)] = path.read_bytes()
    if not any(name.startswith("mechanisms/") for name in files):
        raise RepositoryError(f"{seed} has no mechanisms/*.py: there is nothing to start with")
    if len(files) > MAX_SEED_FILES:
        raise RepositoryError(f"{seed} has more than {MAX_SEED_FILES} files")
    return files
