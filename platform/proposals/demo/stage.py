"""Everything the demo stands on: database, keys, repository, people, runner, and its processes.

Each step is one of the management commands that a site would call by hand, and is safe to repeat.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from django.conf import settings
from django.core.management import call_command
from django.db import connections
from runs.models import Runner

from proposals.demo.children import Child
from proposals.demo.console import Console
from sandbox.backends import get_backend
from sandbox.errors import InfrastructureError
from sandbox.files import put

TARGET = "demo"
RUNNER = "demo-runner"
OPERATOR = "linus"
HOST = "127.0.0.1"
WEB_SECONDS = 180
# Secrets of the platform that the process beside the trainer has no business with.
NOT_FOR_THE_RUNNER = ("ESCAPEMENT_SECRET_KEY", "DATABASE_URL", "ESCAPEMENT_VAR")


class StageError(RuntimeError):
    """The stage can't be set; the message says what to do."""


def take_lock() -> TextIO:
    """One demo a var folder: two would fight over its run. Keep the result open."""
    settings.VAR.mkdir(parents=True, exist_ok=True)
    lock = (settings.VAR / "demo.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise StageError(
            f"another demo runs on {settings.VAR}: stop it first, or set ESCAPEMENT_VAR"
        ) from None
    return lock


def check_port(port: int) -> None:
    """Raises StageError if the port is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise StageError(
                f"port {port} can't be used ({error.strerror}): "
                f"stop what listens there, or choose another: ESCAPEMENT_PORT={port + 1} make demo"
            ) from error


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def set_up(console: Console, url: str) -> tuple[Path, dict[str, str]]:
    """Database, keys, repository, people, runner. Gives the runner's file with its token, and the
    passwords of the people that were made just now."""
    _command(console, "migrating the database", "migrate", "--no-input", quiet=True)
    _command(console, "keys, mechanisms repository, policy", "init")
    said = _command(console, "demo people", "create_people", quiet=True)
    credentials = settings.KEYS / f"{RUNNER}.json"
    if not (credentials.exists() and Runner.objects.filter(name=RUNNER).exists()):
        credentials.unlink(missing_ok=True)
        arguments = ("--target", TARGET, "--operator", OPERATOR, "--out", str(credentials))
        _command(console, "registering the demo runner", "register_runner", RUNNER, *arguments)
    _point_at(credentials, url)
    connections.close_all()  # the children open their own
    return credentials, _passwords(said)


def _command(console: Console, what: str, *arguments: str, quiet: bool = False) -> str:
    """One management command in this process; its output is shown, and given back."""
    console.say(what)
    output = io.StringIO()
    call_command(*arguments, stdout=output, stderr=output, no_color=True)
    if not quiet:
        for line in output.getvalue().splitlines():
            console.line("demo", f"          {line}")
    return output.getvalue()


def _passwords(said: str) -> dict[str, str]:
    """The passwords that create_people printed: lines of `name password`."""
    people = ("ada", "grace", "katherine", "linus")
    found = {}
    for line in said.splitlines():
        words = line.replace(":", " ").split()
        if len(words) >= 2 and words[0] in people:
            found[words[0]] = words[-1]
    return found


def _point_at(credentials: Path, url: str) -> None:
    """Write the address into the runner's file: the port may be another one than last time."""
    data = json.loads(credentials.read_text())
    if data["url"] == url:
        return
    put(credentials, json.dumps({**data, "url": url}).encode())


def web(console: Console, port: int) -> Child:
    """The web server, on the loopback interface."""
    command = (
        *(sys.executable, "-m", "uvicorn", "config.asgi:application", "--host", HOST),
        *("--port", str(port), "--log-level", "warning", "--timeout-graceful-shutdown", "2"),
    )
    return _child("web", command, console, grace_seconds=10)


def worker(console: Console) -> Child:
    """The worker: screenings and periodic sweeps."""
    return _child("worker", (sys.executable, "manage.py", "work"), console, grace_seconds=20)


def runner(console: Console, credentials: Path, out: Path, options: Sequence[str]) -> Child:
    """The runner, with no secret of the platform in its environment."""
    command = (
        *(sys.executable, "-m", "runner", "run", "--task", "gpt", "--platform", str(credentials)),
        *("--out", str(out), *options),
    )
    child = _child("runner", command, console, grace_seconds=30)
    child.may_finish = True
    child.env = {k: v for k, v in child.env.items() if k not in NOT_FOR_THE_RUNNER}
    return child


def _child(name: str, command: Sequence[str], console: Console, *, grace_seconds: float) -> Child:
    env = {
        **os.environ,
        "ESCAPEMENT_VAR": str(settings.VAR),
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "PYTHONPATH": f"{settings.ROOT}{os.pathsep}{settings.ROOT / 'platform'}",
        "PYTHONUNBUFFERED": "1",
    }
    return Child(
        name=name,
        command=command,
        env=env,
        cwd=settings.ROOT,
        console=console,
        grace_seconds=grace_seconds,
    )


def wait_for_web(child: Child, url: str) -> None:
    """Wait until the log-in page answers. Raises StageError."""
    deadline = time.monotonic() + WEB_SECONDS
    problem = "no answer yet"
    while time.monotonic() < deadline:
        if not child.running:
            raise StageError("the web server ended at its start; its last lines are above")
        with suppress(TimeoutError):
            try:
                with urllib.request.urlopen(f"{url}/login/", timeout=5):  # noqa: S310 - our own
                    return
            except urllib.error.HTTPError as error:
                problem = f"/login/ answers {error.code}"
            except OSError as error:
                problem = str(error)
        time.sleep(0.2)
    raise StageError(f"the web server did not answer within {WEB_SECONDS} s: {problem}")


def reap(console: Console) -> None:
    """Remove the sandboxes of processes that were killed before they could."""
    try:
        removed = get_backend().reap()
    except InfrastructureError as error:
        console.error(f"could not look for leftover sandboxes: {error}")
        return
    if removed:
        console.say(f"removed {len(removed)} leftover sandboxes")
