"""What a real host does to a run, beside killing its processes: the way to the platform is cut,
slow or answers nonsense; a database is locked; the disk is full; the runner is frozen; its folder
is copied and started again; another mechanism is ordered.

Each trouble lasts a while and is over when its function returns. Nothing is judged here.
"""

from __future__ import annotations

import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from runner.storage.store import DATABASE
from scripts.chaos_loop_crew import ROOT, Crew

CHUNK = 65536
REFUSING_SECONDS = 120.0  # a second start is told no in that time, on however busy a machine
OPERATORS = ("tabu", "bandit", "annealing", "orthogonal", "restart")
CANNED = {
    "error": b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops",
    "missing": b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 15\r\n"
    b"Connection: close\r\n\r\n<h1>nginx</h1>\r\n",
}
PROXY_MODES = ("cut", "half", "slow", *CANNED)


class Proxy:
    """A proxy between the runners and the web server. `mode`: "" passes everything; `cut` hangs up;
    `half` passes the request and half of its answer; `slow` passes a little at a time; `error` and
    `missing` answer by themselves."""

    def __init__(self, upstream: int) -> None:
        self.mode = ""
        self._upstream = upstream
        self._server = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def switch(self, mode: str) -> None:
        """Another mode, for connections that are open as well: they are cut."""
        self.mode = mode
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            client, _ = self._server.accept()
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        mode = self.mode
        with client, suppress(OSError):
            self._open.add(client)
            if mode == "cut":
                return
            if mode in CANNED:
                client.recv(CHUNK)
                client.sendall(CANNED[mode])
                return
            with socket.create_connection(("127.0.0.1", self._upstream), timeout=30) as server:
                self._open.add(server)
                threading.Thread(target=_pump, args=(client, server, ""), daemon=True).start()
                _pump(server, client, mode)
                self._open.discard(server)
        self._open.discard(client)


def _pump(source: socket.socket, sink: socket.socket, mode: str) -> None:
    with suppress(OSError):
        while data := source.recv(CHUNK):
            if mode == "half":
                sink.sendall(data[: len(data) // 2])
                break
            if mode == "slow":
                for start in range(0, len(data), max(len(data) // 4, 1)):
                    sink.sendall(data[start : start + max(len(data) // 4, 1)])
                    time.sleep(0.3)
                continue
            sink.sendall(data)
    for one in (source, sink):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


class Troubles:
    """All of them, for the runners of one installation."""

    def __init__(self, crews: list[Crew], proxy: Proxy, draw: random.Random) -> None:
        self.crews, self.proxy, self.draw = crews, proxy, draw
        self.refused_starts: list[str] = []
        self.orders = self.seeds = 0
        self.all: dict[str, Callable[[], Any]] = {
            "way": self.block,
            "lock": self.lock_journal,
            "platform": self.lock_platform,
            "freeze": self.freeze,
            "copy": self.copy,
            "twice": self.start_twice,
            "swap": self.order,
            "full": self.fill,
        }

    def _one(self) -> Crew:
        return self.draw.choice(self.crews)

    def block(self) -> str:
        mode = self.draw.choice(PROXY_MODES)
        self.proxy.switch(mode)
        time.sleep(self.draw.uniform(1.0, 6.0))
        self.proxy.switch("")
        return mode

    def lock_journal(self) -> str:
        """Sometimes for longer than a runner waits."""
        return self._locked(self._one().out / DATABASE, self.draw.choice((0.5, 3.0, 14.0)))

    def lock_platform(self) -> str:
        folder = self.crews[0].folder
        return self._locked(folder / "var" / "db.sqlite3", self.draw.choice((0.5, 3.0, 14.0)))

    @staticmethod
    def _locked(path: Path, seconds: float) -> str:
        with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
        return f"{seconds:g} s"

    def freeze(self) -> str:
        """Trainings and sandbox workers go on while the runner does not."""
        runner, seconds = self._one().runner, self.draw.choice((1.0, 5.0, 20.0))
        runner.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        runner.send_signal(signal.SIGCONT)
        return f"{seconds:g} s"

    def copy(self) -> str:
        """The folder copied while it is in use, and started: must be refused."""
        crew = self._one()
        copied = crew.folder / "runs" / f"copy-{len(self.refused_starts)}"
        try:
            shutil.copytree(crew.out, copied)
        except shutil.Error:  # a file of a training ended meanwhile: the next one will do
            shutil.rmtree(copied, ignore_errors=True)
            return "not this time"
        told = self._refused(crew, copied)
        shutil.rmtree(copied)
        return told

    def start_twice(self) -> str:
        crew = self._one()
        if crew.runner.poll() is not None:
            return "not this time"
        return self._refused(crew, crew.out)

    def _refused(self, crew: Crew, out: Path) -> str:
        """Start a runner that must not run, and note "" where it was told so with exit code 2, else
        what it said."""
        started = subprocess.run(
            crew.options(out), cwd=ROOT, env=crew.environment(), capture_output=True, text=True,
            check=False, timeout=REFUSING_SECONDS,
        )  # fmt: skip
        words = ("another runner", "copy of")
        right = started.returncode == 2 and any(word in started.stdout for word in words)
        wrong = "" if right else f"{started.returncode}: {started.stdout[-500:]}"
        self.refused_starts.append(wrong)
        return wrong or "refused"

    def fill(self) -> str:
        """No room where the runs are, for a moment. Only where that is a file system of its own."""
        path = self.crews[0].folder / "runs" / "ballast"
        seconds = self.draw.uniform(0.5, 3.0)
        with suppress(OSError), path.open("wb") as ballast:
            while True:
                ballast.write(bytes(CHUNK))
                ballast.flush()
        time.sleep(seconds)
        path.unlink(missing_ok=True)
        return f"{seconds:.1f} s"

    def order(self) -> str:
        """Another mechanism, whichever; once more an earlier one is a rollback. What follows may
        fall into the middle of the swap. A new one waits until the last one is live."""
        from proposals.acts import Denied  # noqa: PLC0415 - after django.setup()
        from runs.models import Target  # noqa: PLC0415

        target = Target.objects.get(name="lab")
        name = self.draw.choice([one for one in OPERATORS if one != target.desired_mechanism])
        try:
            told = _ordered(target, name)
        except Denied as denied:
            return f"not this time: {denied}"
        self.orders += 1
        self.seeds += told == name
        return told


def _ordered(target: Any, name: str) -> str:
    """Raises Denied."""
    from audit.actors import SYSTEM  # noqa: PLC0415 - after django.setup()
    from proposals import lifecycle  # noqa: PLC0415

    lived = target.activations.filter(live_at__isnull=False, mechanism=name).first()
    if lived is None:
        order_seed(target, name, reason="chaos")
        return name
    lifecycle.roll_back(target_id=target.pk, activation_id=lived.pk, actor=SYSTEM, reason="chaos")
    return f"back to {name}"


def order_seed(target: Any, name: str, *, reason: str) -> None:
    """Order an operator of the seed as if it were the target's first mechanism. Raises Denied."""
    from audit.actors import SYSTEM  # noqa: PLC0415 - after django.setup()
    from proposals import branches  # noqa: PLC0415
    from proposals.activations import request  # noqa: PLC0415
    from proposals.acts import act, locked_target  # noqa: PLC0415
    from proposals.models import Activation  # noqa: PLC0415

    from sandbox.report import digest_of  # noqa: PLC0415

    repository = branches.living()
    commit = repository.head()
    operator = repository.library(commit)[name]
    subject = f"target:{target.name}"
    with act(actor=SYSTEM, tried="seed", subject=subject, target=target.name) as ledger:
        request(
            ledger,
            target=locked_target(target.pk),
            kind=Activation.Kind.SEED,
            mechanism=name,
            path=operator.path,
            commit=commit,
            digest=digest_of(operator.source),
            actor=SYSTEM,
            reason=reason,
        )


@contextmanager
def small_disk(folder: Path, *, megabytes: int) -> Iterator[bool]:
    """A file system of its own at `folder`, if this user may mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)],
        capture_output=True, check=False,
    )  # fmt: skip
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)
