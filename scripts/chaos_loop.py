#!/usr/bin/env python3
"""Kill the parts of a running installation at random moments, and prove that no trial is lost and
none repeated.

A web server, a platform worker and a runner are started in a folder of their own; the runner
searches on a script that takes a fraction of a second and writes down each training that begins
and ends. Then one of the four is killed (SIGKILL), again and again: runner, the sandbox worker of
its mechanism, platform worker, web server. Each is started again at once, as a supervisor would.

In the end: the journal holds every trial once, the platform holds exactly the same, no training
that ended was done again unless the kill fell between its end and its record, and the run equals
one that nobody disturbed. Exit code 0 only if all of it holds.

    .venv/bin/python scripts/chaos_loop.py --kills 50 --out chaos.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [p for p in (str(ROOT), str(ROOT / "platform")) if p not in sys.path]

from runner import subprocesses  # noqa: E402
from sandbox.reaper import LABEL_OWNER  # noqa: E402

PARTS = ("runner", "mechanism", "worker", "web")
GIVE_UP_SECONDS = 3600.0
PAUSED = 5  # exit code: the prior had nothing usable; the same command goes on
SETTLE_TRIALS = 4  # between two kills of a mechanism: twice in one trial gives it up, rightly
SCRIPT = """
import math, os, random, sys, time
RATE = 1.0
BATCH = 512
DEPTH = 4
WIDTH = 0.5
seed = os.environ["ESCAPEMENT_SEED"]
log = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
os.write(log, f"begin {{seed}}\\n".encode())
draw = random.Random(seed)
time.sleep(draw.uniform(0.05, 0.4))
loss = 3 + math.log10(RATE / 0.02) ** 2 + 0.1 * (math.log2(BATCH) - 5) ** 2
loss += 0.05 * (DEPTH - 6) ** 2 + (WIDTH - 0.2) ** 2 + draw.gauss(0, 0.01)
os.write(log, f"end {{seed}}\\n".encode())
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


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Crew:
    """The processes of one installation below `folder`; `name` is the runner's."""

    folder: Path
    trials: int
    parallel: int
    name: str = "gpu-1"
    port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "ESCAPEMENT_VAR": str(self.folder / "var"),
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'platform'}",
            "PYTHONUNBUFFERED": "1",
        }

    def manage(self, *words: str) -> None:
        """A management command, to its end."""
        done = subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=ROOT,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"manage.py {words[0]} failed: {done.stdout}{done.stderr}")

    def set_up(self) -> None:
        self.manage("migrate", "--no-input")
        self.manage("init")
        self.manage("create_people")
        self.register()
        write_script(self.folder / "script", self.folder / "trainings.log")

    @property
    def key(self) -> Path:
        """The runner's credentials."""
        return self.folder / f"{self.name}.json"

    @property
    def out(self) -> Path:
        """The folder of its run."""
        return self.folder / "runs" / self.name

    def register(self) -> None:
        self.manage(
            *("register_runner", self.name, "--target", "lab", "--operator", "linus"),
            *("--out", str(self.key), "--url", self.url),
        )

    def command(self, part: str) -> list[str]:
        python = sys.executable
        if part == "web":
            serve = ["-m", "uvicorn", "config.asgi:application", "--host", "127.0.0.1"]
            return [python, *serve, "--port", str(self.port), "--log-level", "warning"]
        if part == "worker":
            return [python, "manage.py", "work"]
        options = run_options(self.folder, self.out, self.trials, self.parallel)
        return [python, *options, "--platform", str(self.key)]

    def start(self, part: str) -> None:
        with (self.folder / f"{part}.log").open("ab") as log:
            self.processes[part] = subprocess.Popen(
                [sys.executable, "-I", "-S", subprocesses.__file__, str(os.getpid()),
                 *self.command(part)],
                cwd=ROOT, env=self.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def kill(self, part: str) -> bool:
        """Kill it and start it again; False if it was not there to be killed."""
        if part == "mechanism":
            return self._kill_mechanism()
        process = self.processes[part]
        if process.poll() is not None:
            return False
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.start(part)
        return True

    def _kill_mechanism(self) -> bool:
        owner = f"|{self.processes['runner'].pid}|"
        shown = subprocess.run(
            ["docker", "ps", "--format", f'{{{{.ID}}}} {{{{.Label "{LABEL_OWNER}"}}}}'],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        mine = [row.split(" ", 1)[0] for row in shown.stdout.splitlines() if owner in row]
        if not mine:
            return False
        done = subprocess.run(["docker", "kill", mine[0]], capture_output=True, check=False)
        return done.returncode == 0

    def look(self) -> None:
        """Start the runner again where it paused by itself; SystemExit where it can't run."""
        code = self.processes["runner"].poll()
        if code in {2, 7}:
            raise SystemExit(f"the runner can't run: see {self.folder}/runner.log")
        if code:
            self.start("runner")

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def write_script(folder: Path, log: Path) -> None:
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT.format(log=str(log)), encoding="utf-8")
    (folder / "space.yaml").write_text(SPACE, encoding="utf-8")


def run_options(folder: Path, out: Path, trials: int, parallel: int) -> list[str]:
    options = ["-m", "runner", "run", "--task", "script", "--dir", str(folder / "script")]
    options += ["--trials", str(trials), "--parallel", str(parallel), "--seed", "7"]
    return [*options, "--out", str(out), "--no-memory", "--level2-every", "12"]


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    if not path.is_file():
        return []
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            return db.execute(query).fetchall()
    except sqlite3.OperationalError:  # not made yet
        return []


def decided(crew: Crew) -> int:
    query = "SELECT COUNT(*) FROM trials WHERE phase = 'decided'"
    found = rows(crew.out / "journal.sqlite3", query)
    return int(found[0][0]) if found else 0


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/login/", timeout=5):  # noqa: S310 - our own server
            return True
    except (urllib.error.URLError, OSError):
        return False


def _progress(crew: Crew, deadline: float) -> int:
    """Wait for another decided trial, so that kills fall into a run and not into its start alone;
    how many there are."""
    before = decided(crew)
    while decided(crew) == before and crew.processes["runner"].poll() != 0:
        if time.monotonic() > deadline:
            raise SystemExit(f"no trial more in time; see {crew.folder}/runner.log")
        crew.look()
        time.sleep(0.05)
    return decided(crew)


def disturb(crew: Crew, kills: int, draw: random.Random) -> Counter[str]:
    """Kill until it is enough, then wait for the run's end."""
    done: Counter[str] = Counter()
    last_mechanism = -SETTLE_TRIALS
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while sum(done.values()) < kills:
        now = _progress(crew, deadline)
        if crew.processes["runner"].poll() == 0:
            raise SystemExit(f"the run ended after {dict(done)} kills: give it more --trials")
        time.sleep(draw.uniform(0.0, 1.5))
        part = draw.choice(PARTS)
        if part == "mechanism" and now < last_mechanism + SETTLE_TRIALS:
            continue
        if crew.kill(part):
            done[part] += 1
            last_mechanism = decided(crew) if part == "mechanism" else last_mechanism
            say(f"{sum(done.values()):>3} killed {part} at {decided(crew)} trials")
        elif part in crew.processes:
            crew.start(part)  # it ended by itself (it could not reach another one): once more
    while crew.processes["runner"].poll() != 0:
        if time.monotonic() > deadline:
            raise SystemExit(f"the run did not end; see {crew.folder}/runner.log")
        crew.look()
        time.sleep(0.5)
    return done


JOURNAL = (
    "SELECT number, config, changes, metric, status, failure, digest, best_metric, repeats, phase,"
    " report FROM trials ORDER BY number"
)
PLATFORM = (
    "SELECT number, config, changes, metric, status, failure, digest, best_metric, repeats"
    " FROM runs_trial ORDER BY number"
)


def plain(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row with its JSON as data."""
    number, config, changes, *rest, repeats = row
    return (number, json.loads(config), json.loads(changes), *rest, json.loads(repeats))


def _undisturbed(crew: Crew) -> list[tuple[Any, ...]]:
    """The journal of the same run without a platform and without kills. It pauses where its prior
    has nothing to say, as the disturbed one did, and is started again."""
    reference = crew.folder / "reference"
    command = run_options(crew.folder, reference, crew.trials, crew.parallel)
    for _ in range(crew.trials):
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=crew.environment(), capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            return rows(reference / "journal.sqlite3", JOURNAL)
        if done.returncode != PAUSED:
            break
    raise SystemExit(f"the undisturbed run failed: {done.stdout[-2000:]}")


def judge(crew: Crew, done: Counter[str]) -> dict[str, Any]:
    """What holds and what does not."""
    journal = rows(crew.out / "journal.sqlite3", JOURNAL)
    platform = rows(next((crew.folder / "var").glob("*.sqlite3")), PLATFORM)
    mine, theirs = [plain(r[:9]) for r in journal], [plain(r) for r in platform]
    log = [line.split() for line in (crew.folder / "trainings.log").read_text().splitlines()]
    ended = Counter(seed for what, seed in log if what == "end")
    begun = Counter(seed for what, seed in log if what == "begin")
    again = sum(count - 1 for count in begun.values())
    ended_again = sum(count - 1 for count in ended.values())
    undisturbed = [plain(r[:9]) for r in _undisturbed(crew)]
    failed_in_propose = [row[0] for row in mine if row[5] == "mechanism"]
    same_until = min(failed_in_propose, default=crew.trials + 1)

    def without_digest(found: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return [(*row[:6], *row[7:]) for row in found]

    checks = {
        "every trial is there once": [r[0] for r in journal] == list(range(crew.trials + 1)),
        "every trial is decided": {r[9] for r in journal} == {"decided"},
        "every trial is acknowledged": {r[10] for r in journal} == {"sent"},
        "journal and platform agree": mine == theirs,
        "trained again: only what a killed runner was training": again
        <= done["runner"] * crew.parallel,
        "equals an undisturbed run, up to a trial that records a kill": without_digest(
            mine[:same_until]
        )
        == without_digest(undisturbed[:same_until]),
    }
    return {
        "kills": dict(done),
        "trials": crew.trials,
        "parallel": crew.parallel,
        "trainings": sum(begun.values()),
        "trained_again_after_a_kill": again,
        "of_which_had_ended_before_it_was_recorded": ended_again,
        "trials_that_record_a_kill_of_the_mechanism_in_propose": failed_in_propose,
        "trials_compared_with_the_undisturbed_run": same_until,
        "proposals": len(rows(next((crew.folder / "var").glob("*.sqlite3")),
                              "SELECT id FROM proposals_proposal")),
        "checks": checks,
    }  # fmt: skip


def main() -> int:
    """Set up, disturb, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    kills = int(os.environ.get("ESCAPEMENT_CHAOS", "50"))
    parser.add_argument("--kills", type=int, default=kills)
    parser.add_argument("--trials", type=int, default=0, help="default: eight a kill")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--out", type=Path, help="where to write the result as JSON")
    parser.add_argument("--folder", type=Path, help="where to work; kept (default: a temporary)")
    options = parser.parse_args()
    draw = random.Random(options.seed)  # noqa: S311 - moments of kills, not secrets
    say(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="escapement-chaos-") as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        trials = options.trials or 8 * options.kills
        crew = Crew(folder=folder, trials=trials, parallel=options.parallel)
        began = time.monotonic()
        crew.set_up()
        try:
            crew.start("web")
            while not answers(crew.url):
                time.sleep(0.2)
            crew.start("worker")
            crew.start("runner")
            done = disturb(crew, options.kills, draw)
        finally:
            crew.stop()
        found = {"seed": options.seed, **judge(crew, done)}
        found["seconds"] = round(time.monotonic() - began, 1)
    say(json.dumps(found, indent=1))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0 if all(found["checks"].values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
