"""Fixtures of the audit log's tests: sites of their own on SQLite files and on PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def unprotected() -> Callable[[], AbstractContextManager[None]]:
    """A moment without triggers: what somebody with the database file can do."""
    from audit import triggers
    from django.db import connection

    @contextmanager
    def moment() -> Iterator[None]:
        triggers.remove(connection)
        try:
            yield
        finally:
            triggers.install(connection)

    return moment


@dataclass(frozen=True)
class Site:
    """A platform of its own, used through processes of its own."""

    var: Path
    url: str = ""

    @property
    def database(self) -> str:
        return self.url or str(self.var / "db.sqlite3")

    @property
    def public_key(self) -> Path:
        return self.var / "keys" / "platform.pub"

    @property
    def environment(self) -> dict[str, str]:
        made = {
            **os.environ,
            "ESCAPEMENT_VAR": str(self.var),
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'platform'}",
        }
        made.pop("DATABASE_URL", None)
        return {**made, "DATABASE_URL": self.url} if self.url else made

    def python(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> str:
        """Run Python to its end; a failure is the test's."""
        process = self.python(*arguments)
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, f"{out}\n{err}"
        return out

    def verify(self, *arguments: str) -> tuple[int, str]:
        process = self.python("manage.py", "verify_audit", *arguments)
        out, err = process.communicate(timeout=240)
        return process.returncode, out + err


def build(var: Path, url: str = "") -> Site:
    """A migrated site with keys and an empty log."""
    site = Site(var, url)
    site.run(
        "-c",
        "import django; django.setup()\n"
        "from django.core.management import call_command\n"
        "from audit.keys import ensure_keys\n"
        "ensure_keys(); call_command('migrate', verbosity=0, skip_checks=True)",
    )
    return site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """SQLite in a file, to which two processes of four threads each appended at once."""
    return appended(build(tmp_path_factory.mktemp("site")))


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """SQLite with a whole story in it, told by the real verbs on real git."""
    site = build(tmp_path_factory.mktemp("told"))
    site.run("tests/web/factory.py")
    return site


def appended(site: Site) -> Site:
    script = str(Path(__file__).with_name("appender.py"))
    processes = [site.python(script, "4", "15") for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, f"{out}\n{err}"
        assert "Exception" not in err, err
    return site


# --- PostgreSQL --------------------------------------------------------------------------------


def _binaries() -> Path:
    """Where PostgreSQL's programs are. Missing is a failure with the command, never a skip."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found and (path := shutil.which("initdb")):
        found = [Path(path)]
    if not found:
        pytest.fail(
            "PostgreSQL is not installed: run `apt-get install -y postgresql`", pytrace=False
        )
    return found[-1].resolve().parent


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of an empty database on a server of our own on loopback; root can't run one, so
    the account `postgres` does."""
    binaries = _binaries()
    folder = Path(tempfile.mkdtemp(prefix="escapement-postgres-"))
    data = folder / "data"
    root = os.geteuid() == 0
    account = pwd.getpwnam("postgres") if root else pwd.getpwuid(os.geteuid())
    os.chown(folder, account.pw_uid, account.pw_gid)

    def run(name: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(binaries / name), *arguments],
            user=account.pw_uid if root else None,
            group=account.pw_gid if root else None,
            extra_groups=[] if root else None,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{name}: {done.stderr}"

    try:
        run("initdb", "-D", str(data), "-U", "tester", "-A", "trust", "-N", "-E", "UTF8")
        control = ("pg_ctl", "-D", str(data), "-l", str(folder / "log"), "-w", "-t", "200")
        for tries_left in (2, 1, 0):
            port = _port()  # somebody else may have it by now
            options = f"-h 127.0.0.1 -p {port} -k {folder} -F -c max_connections=40"
            try:
                run(*control, "-o", options, "start")
                break
            except AssertionError:
                if not tries_left:
                    raise
        try:
            yield f"postgresql://tester@127.0.0.1:{port}/postgres"
        finally:
            with contextlib.suppress(AssertionError):
                run("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_site(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The same on PostgreSQL."""
    return appended(build(tmp_path_factory.mktemp("pgsite"), postgres))
