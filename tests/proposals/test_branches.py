"""The mechanisms repository: real git, hostile paths, hooks and configuration that must not run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proposals.branches import Moved, Repository, RepositoryError, branch_name

DRAFT = {"mechanisms/mine.py": b"a = 1\r\n\xff", "tests/test_mine.py": b"b = 1\n"}


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    folder = tmp_path / "seed"
    for name, text in {"mechanisms/null.py": "n = 1\n", "tests/test_null.py": "t = 1\n"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "README.md").write_text("Mechanisms.\n")
    return folder


@pytest.fixture
def repository(tmp_path: Path, seed: Path) -> Repository:
    made = Repository(tmp_path / "mechanisms.git")
    made.init(seed)
    return made


def test_init_is_idempotent_and_whole(repository: Repository, seed: Path) -> None:
    head = repository.head()
    (seed / "mechanisms" / "late.py").write_text("x = 1\n")
    assert repository.init(seed) == head
    assert set(repository.paths(head)) == {
        "README.md", "mechanisms/null.py", "tests/test_null.py",
    }  # fmt: skip
    assert [p.name for p in repository.path.parent.iterdir() if p.name.startswith("mech")] == [
        "mechanisms.git"
    ]


def test_a_half_made_repository_is_never_seen(tmp_path: Path, seed: Path) -> None:
    (seed / "mechanisms" / "link.py").symlink_to("/etc/passwd")
    with pytest.raises(RepositoryError, match="link"):
        Repository(tmp_path / "r.git").init(seed)
    assert not (tmp_path / "r.git").exists()
    with pytest.raises(RepositoryError, match="no mechanisms"):
        Repository(tmp_path / "r.git").init(tmp_path / "nothing")


def test_a_draft_keeps_its_exact_bytes_and_nothing_else_changes(repository: Repository) -> None:
    head = repository.head()
    done = repository.commit_draft(proposal_id=7, base=head, files=DRAFT, name="mine")
    assert repository.branch(7) == done.commit
    assert repository.changed(head, done.commit) == DRAFT
    assert repository.parent_of(done.commit) == head
    assert repository.tree_of(done.commit) == done.tree
    assert repository.head() == head
    assert "+a = 1" in repository.diff(head, done.commit)
    log = git(repository, "log", "-1", "--format=%an %ae %cn %s", done.commit)
    assert log == "Escapement platform@escapement.invalid Escapement Proposal 7: mine"
    assert git(repository, "fsck", "--strict") == ""


def test_the_library_has_each_files_exact_bytes_or_says_what_is_missing(
    repository: Repository,
) -> None:
    head = repository.head()
    odd = {"mechanisms/mine.py": b"a\n\n\xff\0 blob 3\n", "mechanisms/empty.py": b""}
    done = repository.commit_draft(proposal_id=7, base=head, files=odd, name="mine")
    library = repository.library(done.commit)
    assert {name: one.source for name, one in library.items()} == {
        "null": b"n = 1\n", "mine": odd["mechanisms/mine.py"], "empty": b"",
    }  # fmt: skip
    assert (library["null"].test, library["mine"].test) == (b"t = 1\n", b"")
    blob = repository.paths(head)["mechanisms/null.py"]
    (repository.path / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(RepositoryError, match=f"no blob {blob}: '{blob} missing'"):
        repository.library(head)


def test_only_a_fast_forward_from_what_was_seen_moves_main(repository: Repository) -> None:
    head = repository.head()
    one = repository.commit_draft(proposal_id=1, base=head, files=DRAFT, name="mine")
    two = repository.commit_draft(
        proposal_id=2, base=head, files={"mechanisms/other.py": b"x = 1\n"}, name="other"
    )
    repository.fast_forward(old=head, new=one.commit)
    assert repository.head() == one.commit
    for old in (head, one.commit):
        with pytest.raises(Moved):
            repository.fast_forward(old=old, new=two.commit)
    assert repository.head() == one.commit
    assert set(repository.library(one.commit)) == {"null", "mine"}


def test_an_earlier_commit_of_a_branch_stays(repository: Repository) -> None:
    head = repository.head()
    one = repository.commit_draft(proposal_id=1, base=head, files=DRAFT, name="mine")
    changed = {**DRAFT, "tests/test_mine.py": b"c = 2\n"}
    two = repository.commit_draft(proposal_id=1, base=head, files=changed, name="mine")
    assert repository.branch(1) == two.commit
    refs = git(repository, "for-each-ref", "--format=%(refname)", "refs/archive/")
    assert refs == f"refs/archive/1/{one.commit}"


def test_checkpoints_are_anchored_as_a_chain(repository: Repository) -> None:
    assert repository.anchored() is None
    repository.anchor(b"one")
    repository.anchor(b"two")
    assert repository.anchored() == b"two"
    assert git(repository, "rev-list", "--count", "refs/escapement/audit") == "2"


def test_hooks_filters_and_configuration_of_users_do_not_run(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = tmp_path / "ran"
    hooks = repository.path / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("reference-transaction", "update", "post-update", "pre-receive"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {proof}\n")
        (hooks / name).chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        f"[core]\n hooksPath = {hooks}\n fsmonitor = touch {proof}\n"
        f'[filter "x"]\n clean = touch {proof}\n[diff]\n external = touch {proof}\n'
        "[user]\n name = Mallory\n email = m@example.com\n[commit]\n gpgSign = true\n"
    )
    (repository.path / "info").mkdir(exist_ok=True)
    (repository.path / "info" / "attributes").write_text("*.py filter=x diff=x\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    head = repository.head()
    done = repository.commit_draft(proposal_id=3, base=head, files=DRAFT, name="mine")
    repository.fast_forward(old=head, new=done.commit)
    repository.diff(head, done.commit)
    assert not proof.exists()
    assert "Mallory" not in git(repository, "log", "-1", "--format=%an %cn", done.commit)


@pytest.mark.parametrize(
    "path",
    [
        "../evil.py", "/etc/passwd", "mechanisms/../x.py", "mechanisms/.git", "-x.py",
        ".git/config",
        "mechanisms/a/b.py", "mechanisms/X.py", "tests/conftest.py", "mechanisms/a.py\n", "",
        "mechanisms/a.sh", "--output=x",
    ],
)  # fmt: skip
def test_no_other_path_is_ever_written(repository: Repository, path: str) -> None:
    head = repository.head()
    with pytest.raises(RepositoryError):
        repository.commit_draft(proposal_id=1, base=head, files={path: b"x"}, name="mine")
    assert repository.branch(1) is None


@given(st.text(max_size=60))
def test_no_text_is_a_commit_unless_it_is_forty_hex_digits(text: str) -> None:
    repository = Repository(Path("/nonexistent"))
    with pytest.raises(RepositoryError):
        repository.read(text, "mechanisms/null.py")
    with pytest.raises(RepositoryError):
        repository.fast_forward(old=text, new=text)


@pytest.mark.parametrize("name", ["", "A", "x y", "--x", "a" * 61, "a\n"])
def test_a_name_is_a_name(repository: Repository, name: str) -> None:
    with pytest.raises(RepositoryError):
        repository.commit_draft(proposal_id=1, base=repository.head(), files=DRAFT, name=name)


def test_a_missing_repository_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError):
        Repository(tmp_path / "none.git").head()
    assert branch_name(3) == "proposals/3"


def git(repository: Repository, *arguments: str) -> str:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}
    command = ["git", f"--git-dir={repository.path}", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()
