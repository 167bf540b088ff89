"""The processes of one installation that is about to be disturbed: web server, platform worker and
a runner, each started, killed and started again as a supervisor would. Who is disturbed, and what
must hold afterwards, is decided elsewhere (`chaos_loop.py`, `chaos_loop_judge.py`).
"""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.processes import subprocesses
from runner.storage.store import DATABASE
from sandbox.reaper import LABEL_OWNER

ROOT = Path(__file__).resolve().parents[1]
SERVE_SECONDS = 120.0
COMMAND_SECONDS = 600.0
USELESS_STARTS = 8  # a runner that ends so often without a trial in between can't run
SCRIPT = """
import json, math, os, random, sys, time
RATE = 1.0
BATCH = 512
DEPTH = 4
WIDTH = 0.5
{more}
seed = os.environ["ESCAPEMENT_SEED"]
log = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def runner(pid):
    with open(f"/proc/{{pid}}/stat") as about, open(f"/proc/{{pid}}/cmdline") as words:
        if {{"runner", "run"}} <= set(words.read().split("\\0")):
            return pid
        return runner(int(about.read().rsplit(")", 1)[1].split()[1]))
mine = runner(os.getppid())
def note(**what):
    what.update(seed=int(seed), runner=mine)
    os.write(log, (json.dumps(what) + "\\n").encode())
note(what="begin")
draw = random.Random(seed)
time.sleep(draw.uniform(0.05, 0.4))
loss = 3 + math.log10(RATE / 0.02) ** 2 + 0.1 * (math.log2(BATCH) - 5) ** 2
loss += 0.05 * (DEPTH - 6) ** 2 + (WIDTH - 0.2) ** 2 + draw.gauss(0, 0.01)
loss += 0.1 * sum((globals()[name] - 0.3) ** 2 for name in {names})
config = {{name: globals()[name] for name in ["RATE", "BATCH", "DEPTH", "WIDTH", *{names}]}}
note(what="end", loss=f"{{loss:.6f}}", config=config)
print(f"val_bpb: {{loss:.6f}}")
"""
SPACE = """
metric: {name: val_bpb}
knobs:
  RATE: {kind: float, low: 0.001, high: 10.0, log: true}
  BATCH: {kind: power_of_two, low: 8, high: 1024}
  DEPTH: {kind: int, low: 1, high: 12}
  WIDTH: {kind: float, low: 0.0, high: 1.0, log: false}
"""
MORE = tuple(f"K{number}" for number in range(10))  # so that no guidance leaves none to move


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    """What a query gives of a database that others write; nothing where there is none yet."""
    if not path.is_file():
        return []
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            return db.execute(query).fetchall()
    except sqlite3.OperationalError:  # not made yet
        return []


def answers(url: str) -> bool:
    """Whether a web server is there."""
    try:
        with urllib.request.urlopen(f"{url}/login/", timeout=5):  # noqa: S310 - our own server
            return True
    except (urllib.error.URLError, OSError):
        return False


def write_script(folder: Path, log: Path) -> None:
    folder.mkdir()
    constants = "\n".join(f"{name} = 0.5" for name in MORE)
    script = SCRIPT.format(log=str(log), names=MORE, more=constants)
    (folder / "train.py").write_text(script, encoding="utf-8")
    knobs = "".join(
        f"  {name}: {{kind: float, low: 0.0, high: 1.0, log: false}}\n" for name in MORE
    )
    (folder / "space.yaml").write_text(SPACE + knobs, encoding="utf-8")


@dataclass
class Crew:
    """The processes of one installation below `folder`; `name` is the runner's. Several crews of
    one folder and port are several runners of one installation. `address`: what the runner is
    told, if it is not the web server's own."""

    folder: Path
    trials: int
    parallel: int
    name: str = "gpu-1"
    seed: int = 7
    sandbox: str = ""
    address: str = ""
    port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _useless: tuple[int, int] = (-1, 0)  # decided trials at the last start again, starts since

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> Path:
        """The runner's credentials."""
        return self.folder / f"{self.name}.json"

    @property
    def out(self) -> Path:
        """The folder of its run."""
        return self.folder / "runs" / self.name

    @property
    def runner(self) -> subprocess.Popen[bytes]:
        return self.processes["runner"]

    def environment(self) -> dict[str, str]:
        more = {"ESCAPEMENT_SANDBOX": self.sandbox} if self.sandbox else {}
        return {
            **os.environ,
            **more,
            "ESCAPEMENT_VAR": str(self.folder / "var"),
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'platform'}",
            "PYTHONUNBUFFERED": "1",
        }

    def command_of(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A management command, to its end."""
        return subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=ROOT,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )

    def manage(self, *words: str) -> None:
        """A management command that must not fail."""
        done = self.command_of(*words)
        if done.returncode:
            raise SystemExit(f"manage.py {words[0]} failed: {done.stdout}{done.stderr}")

    def set_up(self) -> None:
        self.manage("migrate", "--no-input")
        self.manage("init")
        self.manage("create_people")
        self.register()
        write_script(self.folder / "script", self.folder / "trainings.log")

    def register(self) -> None:
        self.manage(
            *("register_runner", self.name, "--target", "lab", "--operator", "linus"),
            *("--out", str(self.key), "--url", self.address or self.url),
        )

    def options(self, out: Path | None = None) -> list[str]:
        """The command line of its run."""
        options = ["-m", "runner", "run", "--task", "script", "--dir", str(self.folder / "script")]
        options += ["--trials", str(self.trials), "--parallel", str(self.parallel)]
        options += ["--seed", str(self.seed), "--out", str(out or self.out)]
        options += ["--no-memory", "--level2-every", "12"]
        return [sys.executable, *options, "--platform", str(self.key)]

    def command(self, part: str) -> list[str]:
        if part == "web":
            serve = ["-m", "uvicorn", "config.asgi:application", "--host", "127.0.0.1"]
            return [sys.executable, *serve, "--port", str(self.port), "--log-level", "warning"]
        if part == "worker":
            return [sys.executable, "manage.py", "work"]
        return self.options()

    def start(self, part: str) -> None:
        """Start a part; by way of `subprocesses`, so that it ends with this program."""
        name = self.name if part == "runner" else part
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[part] = subprocess.Popen(
                [sys.executable, "-I", "-S", subprocesses.__file__, str(os.getpid()),
                 *self.command(part)],
                cwd=ROOT, env=self.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def serve(self) -> None:
        """Start the web server and wait until it answers; SystemExit where it does not."""
        self.start("web")
        deadline = time.monotonic() + SERVE_SECONDS
        while not answers(self.url):
            if self.processes["web"].poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the web server does not answer: see {self.folder}/web.log")
            time.sleep(0.1)

    def kill(self, part: str, *, then: str = "") -> bool:
        """Kill it and start it again; False if it was not there to be killed. `then`: `torn` puts
        half a record behind the journal's write-ahead log before the new start."""
        if part == "mechanism":
            return self._kill_mechanism()
        process = self.processes[part]
        if process.poll() is not None:
            return False
        process.send_signal(signal.SIGKILL)
        process.wait()
        if then == "torn":
            with (self.out / f"{DATABASE}-wal").open("ab") as log:
                log.write(os.urandom(1500))
        self.start(part)
        return True

    def _kill_mechanism(self) -> bool:
        if self.sandbox == "bubblewrap":
            mine = sorted(pid for pid in children(self.runner.pid) if "bwrap" in name_of(pid))
            for pid in mine[-1:]:  # the youngest: it may be the next one, that is being made ready
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return bool(mine)
        owner = f"|{self.runner.pid}|"
        shown = subprocess.run(
            ["docker", "ps", "--format", f'{{{{.ID}}}} {{{{.Label "{LABEL_OWNER}"}}}}'],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        mine_there = [row.split(" ", 1)[0] for row in shown.stdout.splitlines() if owner in row]
        if not mine_there:
            return False
        killed = subprocess.run(["docker", "kill", mine_there[0]], capture_output=True, check=False)
        return killed.returncode == 0

    def decided(self) -> int:
        """Trials that its journal has, the baseline included."""
        query = "SELECT COUNT(*) FROM trials WHERE phase = 'decided'"
        found = rows(self.out / DATABASE, query)
        return int(found[0][0]) if found else 0

    def look(self) -> None:
        """Start the runner again where it ended by itself; SystemExit where that leads nowhere."""
        if not self.runner.poll():
            return
        done, (before, starts) = self.decided(), self._useless
        self._useless = (done, starts + 1 if done == before else 1)
        if self._useless[1] > USELESS_STARTS:
            raise SystemExit(f"the runner can't run: see {self.folder}/{self.name}.log")
        self.start("runner")

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def children(parent: int) -> list[int]:
    """Processes that were started by one process, through any of its threads."""
    found: list[int] = []
    for path in Path(f"/proc/{parent}/task").glob("*/children"):
        with suppress(OSError):  # the thread, or all of it, ended
            found += [int(pid) for pid in path.read_text().split()]
    return found


def name_of(pid: int) -> str:
    """What a process is called; nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""
