"""Kills the parts of a running installation at random moments: no trial is lost, none repeated.

A web server, a platform worker and runners of one target are started in a folder of their own; the
runners search on a script that takes a fraction of a second and writes down each training that
begins and ends. Then a part is killed (SIGKILL), again and again: a runner, the sandbox worker of
its mechanism, the platform worker, the web server. Each is started again at once, as a supervisor
would. In between come troubles (`chaos_loop_trouble.py`) and orders to run another mechanism.

In the end (`chaos_loop_judge.py`): journal, platform and the trainings' own list agree, each trial
and decision is what the bytes that it names give when they are asked again, and the audit log is
whole. Exit code 0 only if all of it holds. Where the folder of the runs can be a file system of its
own (root), the disk is full now and then, too.

    sudo .venv/bin/python scripts/chaos_loop.py --kills 50 --sandbox bubblewrap --out chaos.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [p for p in (str(ROOT), str(ROOT / "platform")) if p not in sys.path]

from runner.storage.store import DATABASE  # noqa: E402
from runner.tasks import get_task  # noqa: E402
from scripts.chaos_loop_crew import Crew, free_port, rows, say  # noqa: E402
from scripts.chaos_loop_judge import (  # noqa: E402
    left_by,
    library,
    of_platform,
    of_trainings,
    replayed,
)
from scripts.chaos_loop_trouble import OPERATORS, Proxy, Troubles, small_disk  # noqa: E402

PARTS = ("runner", "mechanism", "worker", "web")
GIVE_UP_SECONDS = 7200.0
UNBOUNDED_TRIALS = 100_000  # while it is disturbed; then: as many as there are, and LAST_TRIALS
LAST_TRIALS = 6
PATIENCE_SECONDS = 45.0
SETTLE_TRIALS = 4  # between two kills of a mechanism: twice in one trial gives it up, rightly
DISK_MEGABYTES = 128  # a thousand trials take 30, a copy of a folder as much again
OUR_OWN = "a seed is the first of its target"


class Chaos:
    """One installation, its runners, and what was done to them."""

    def __init__(self, crews: list[Crew], proxy: Proxy, draw: random.Random, *, disk: bool) -> None:
        self.crews, self.draw = crews, draw
        self.troubles = Troubles(crews, proxy, draw)
        if not disk:
            del self.troubles.all["full"]
        self.kills: Counter[str] = Counter()
        self.troubled: Counter[str] = Counter()
        self.starts = 0  # of runners, after the first
        self._mechanism_at: dict[str, int] = {}
        self._deadline = time.monotonic() + GIVE_UP_SECONDS

    def disturb(self, kills: int) -> None:
        """Kill until it is enough, with a trouble or an order after every second one."""
        while not self.troubles.orders:
            self._progress()
            self.troubles.order()
        while sum(self.kills.values()) < kills:
            self._progress()
            time.sleep(self.draw.uniform(0.0, 1.5))
            if self.draw.random() < 0.4:
                name = self.draw.choice([*self.troubles.all, *("swap", "swap", "way")])
                self.troubled[name] += 1
                say(f"    {name}: {self.troubles.all[name]()}")
                if name != "swap" or self.draw.random() < 0.3:
                    continue
                time.sleep(self.draw.uniform(0.0, 1.0))  # into the swap
            self._kill(self.draw.choice(PARTS), self.draw.choice(self.crews))

    def _kill(self, part: str, crew: Crew) -> None:
        crew = crew if part in {"runner", "mechanism"} else self.crews[0]
        settled = self._mechanism_at.get(crew.name, -SETTLE_TRIALS) + SETTLE_TRIALS
        if part == "mechanism" and crew.decided() < settled:
            return
        torn = "torn" if part == "runner" and self.draw.random() < 0.3 else ""
        if not crew.kill(part, then=torn):
            self._look()
            return
        self.kills[part] += 1
        if part == "mechanism":
            self._mechanism_at[crew.name] = crew.decided()
        self.starts += part == "runner"
        told = f"{sum(self.kills.values()):>3} killed {part} {torn}".rstrip()
        say(f"{told} at {[one.decided() for one in self.crews]} trials")

    def _look(self) -> None:
        """Start again what ended by itself."""
        for crew in self.crews:
            self.starts += bool(crew.runner.poll())
            crew.look()
        for part in ("web", "worker"):
            if self.crews[0].processes[part].poll() is not None:
                self.crews[0].start(part)

    def _progress(self) -> None:
        """Wait for another decided trial of each runner, so that kills fall into a run and not into
        its start alone."""
        before = [crew.decided() for crew in self.crews]
        patient = time.monotonic() + PATIENCE_SECONDS
        while any(c.decided() <= b for c, b in zip(self.crews, before, strict=True)):
            self._in_time()
            self._look()
            if time.monotonic() > patient:  # a mechanism that was given up: people order another
                say(f"    nothing goes on, so: {self.troubles.order()}")
                patient = time.monotonic() + PATIENCE_SECONDS
            time.sleep(0.05)

    def _in_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise SystemExit(f"no trial more in time; see {self.crews[0].folder}/*.log")

    def finish(self) -> None:
        """Each run to its end: a few more trials, and everything acknowledged."""
        for crew in self.crews:
            crew.runner.terminate()
            crew.runner.wait(60)
            crew.trials = crew.decided() - 1 + LAST_TRIALS
            crew.start("runner")
        self.starts += len(self.crews)
        while not all(self._finished(crew) for crew in self.crews):
            self._in_time()
            self._look()
            time.sleep(0.3)

    def _finished(self, crew: Crew) -> bool:
        if crew.runner.poll() != 0:
            return False
        if not rows(crew.out / DATABASE, "SELECT 1 FROM trials WHERE report = 'waiting'"):
            return True
        crew.start("runner")  # the platform was away as it ended: the same command again
        return False

    def judge(self) -> dict[str, Any]:
        """What holds and what does not."""
        lefts = {crew.name: left_by(crew.out) for crew in self.crews}
        log = self.crews[0].folder / "trainings.log"
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        at_once = self.crews[0].parallel
        checks = of_trainings(list(lefts.values()), lines, self.starts * at_once)
        wrong: dict[str, list[str]] = {}
        mechanisms = library(["null", *OPERATORS])
        space = get_task("script", ["--dir", str(self.crews[0].folder / "script")]).space
        for crew in self.crews:
            left = lefts[crew.name]
            theirs = of_platform(left, crew.folder / "var" / "db.sqlite3")
            for what, holds in theirs.items():
                checks[what] = checks.get(what, True) and holds
            wrong[crew.name] = replayed(
                left, mechanisms, space, parallel=crew.parallel, trials=crew.trials
            )
        checks["asked again, each mechanism chooses and decides the same"] = not any(wrong.values())
        checks["a copied folder and a second start are refused"] = not any(
            self.troubles.refused_starts
        )
        checks["the target runs what was ordered last"] = self._converged()
        checks["the audit log is whole"] = self._audited()
        begun = sum(line["what"] == "begin" for line in lines)
        return {
            "kills": dict(self.kills),
            "troubles": dict(self.troubled),
            "orders": self.troubles.orders,
            "starts_refused": len(self.troubles.refused_starts),
            "runners": len(self.crews),
            "parallel": at_once,
            "trials": {name: len(left.entries) - 1 for name, left in lefts.items()},
            "versions": {n: len({e.version for e in x.entries[1:]}) for n, x in lefts.items()},
            "trainings": begun,
            "trained_again": begun - len({line["seed"] for line in lines}),
            "trials_that_record_a_kill_in_propose": sum(
                entry.failure == "mechanism" for left in lefts.values() for entry in left.entries
            ),
            "wrong": {name: found[:20] for name, found in wrong.items() if found},
            "checks": checks,
        }

    def _audited(self) -> bool:
        """Whether the verifier finds what this program does against the rules (it orders operators
        that nobody approved, as if each were a target's first), and nothing else."""
        found = json.loads(self.crews[0].command_of("verify_audit", "--json").stdout)
        messages = Counter(one["message"] for one in found["problems"])
        return messages == Counter({OUR_OWN: self.troubles.seeds})

    def _converged(self) -> bool:
        database = self.crews[0].folder / "var" / "db.sqlite3"
        wanted = rows(database, "SELECT desired_version, desired_digest FROM runs_target")
        seen = "SELECT live_version, live_digest FROM runs_target"
        return len(wanted) == 1 and rows(database, seen) == wanted


def crews_of(folder: Path, proxy: Proxy, port: int, options: argparse.Namespace) -> list[Crew]:
    """The runners; the first has web server and worker beside it."""
    return [
        Crew(
            folder=folder,
            trials=UNBOUNDED_TRIALS,
            parallel=options.parallel,
            name=f"gpu-{number + 1}",
            seed=options.seed % 1_000_000 + number,
            sandbox=options.sandbox,
            address=proxy.url,
            port=port,
        )
        for number in range(options.runners)
    ]


def disturbed(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Set up, disturb, judge."""
    port = free_port()
    proxy = Proxy(port)
    crews = crews_of(folder, proxy, port, options)
    first = crews[0]
    with small_disk(folder / "runs", megabytes=DISK_MEGABYTES) as disk:
        first.set_up()
        for crew in crews[1:]:
            crew.register()
        os.environ.update(first.environment())
        import django  # noqa: PLC0415 - its settings are those of the folder

        django.setup()
        # The moments of kills are no secrets.
        chaos = Chaos(crews, proxy, random.Random(options.seed), disk=disk)  # noqa: S311
        try:
            first.serve()
            first.start("worker")
            for crew in crews:
                crew.start("runner")
            chaos.disturb(options.kills)
            chaos.finish()
        finally:
            for crew in crews[::-1]:
                crew.stop()
            if options.folder:  # what is on a file system of its own goes with it
                shutil.copytree(folder / "runs", folder / "left")
        return chaos.judge()


def main() -> int:
    """Disturb one installation, print what held, and say it with the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=50, help="of all parts together")
    parser.add_argument("--parallel", type=int, default=2, help="trainings of a runner at once")
    parser.add_argument("--runners", type=int, default=2, help="of one target")
    parser.add_argument("--sandbox", default="bubblewrap", choices=("bubblewrap", "docker"))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--out", type=Path, help="where to write the result as JSON")
    parser.add_argument("--folder", type=Path, help="where to work; kept (default: a temporary)")
    options = parser.parse_args()
    say(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="escapement-chaos-") as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        found = {"seed": options.seed, "sandbox": options.sandbox, **disturbed(folder, options)}
        found["seconds"] = round(time.monotonic() - began, 1)
    say(json.dumps(found, indent=1))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0 if all(found["checks"].values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
