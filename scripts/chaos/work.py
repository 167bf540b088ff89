"""`manage.py work` that is killed in the middle, told to stop, or not alone; on a site of its own.

What is right: each draft ends passed by one verdict, or given up after a bounded number of looks
and never judged; the audit log verifies; nothing is left of the worker that died; one that is told
to stop says no traceback.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from looks import Chance, Result, nothing_left, result

from sandbox import reaper

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(__file__).with_name("platform_site.py")
DRAFTS = 2
MOST_LOOKS = 4
DONE_SECONDS = 240.0
STOP_SECONDS = 60.0
BOOT_SECONDS = 2.0
LOOKS_SECONDS = 8.0


class Site:
    """A platform below one folder."""

    def __init__(self, folder: Path, backend: str, drafts: int) -> None:
        self._folder = folder
        self._environment = {
            **os.environ,
            "ESCAPEMENT_VAR": str(folder / "var"),
            "ESCAPEMENT_SANDBOX": backend,
        }
        self.ask("make", str(drafts))

    def ask(self, *words: str) -> dict[str, Any]:
        """What `platform_site.py` prints; SystemExit with its words where it fails."""
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, str(SITE), *words],
            env=self._environment,
            check=False,
            capture_output=True,
            timeout=DONE_SECONDS,
        )
        if done.returncode:
            raise SystemExit(f"{SITE.name} {words[0]} failed: {done.stderr.decode()[-2000:]}")
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def worker(self, name: str) -> subprocess.Popen[bytes]:
        """A `manage.py work`, its words in a file of that name."""
        with (self._folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, str(ROOT / "manage.py"), "work"],
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def words(self, name: str) -> str:
        """What that worker said."""
        return (self._folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def settle(self) -> dict[str, Any]:
        """Wait until every draft is decided, within a bound; how they stand."""
        deadline = time.monotonic() + DONE_SECONDS
        while True:
            told = self.ask("tell")
            done = all(
                p["state"] in ("passed", "failed") or _given_up(p) for p in told["proposals"]
            )
            if done or time.monotonic() > deadline:
                return told
            time.sleep(1)


def killed(chance: Chance) -> Result:
    """SIGKILL to the worker at a random moment; another one takes over."""
    began, moment = time.monotonic(), BOOT_SECONDS + chance.random.uniform(0, LOOKS_SECONDS)
    with tempfile.TemporaryDirectory(prefix="escapement-site-") as folder:
        site = Site(Path(folder), chance.name, DRAFTS)
        first = site.worker("first")
        time.sleep(moment)
        owner = _owner(first.pid)
        first.kill()
        first.wait()
        second = site.worker("second")
        told = site.settle()
        wrong = _judge(told) + _stop(site, second, "second", chance)
        wrong += nothing_left(chance, owner) if owner else []
    what = f"worker killed after {moment:.1f} s"
    kind = f"manage.py work ({chance.name})"
    return result(kind=kind, what=what, ended=_ended(told), began=began, wrong=wrong)


def told_to_stop(chance: Chance) -> Result:
    """SIGTERM to the worker at a random moment; what it looked at is given back."""
    began, moment = time.monotonic(), BOOT_SECONDS + chance.random.uniform(0, LOOKS_SECONDS)
    with tempfile.TemporaryDirectory(prefix="escapement-site-") as folder:
        site = Site(Path(folder), chance.name, DRAFTS)
        first = site.worker("first")
        time.sleep(moment)
        wrong = _stop(site, first, "first", chance)
        second = site.worker("second")
        told = site.settle()
        wrong += _judge(told) + _stop(site, second, "second", chance)
    what = f"worker told to stop after {moment:.1f} s"
    kind = f"manage.py work stopped ({chance.name})"
    return result(kind=kind, what=what, ended=_ended(told), began=began, wrong=wrong)


def two(chance: Chance) -> Result:
    """Two workers on one queue, from the same moment."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="escapement-site-") as folder:
        site = Site(Path(folder), chance.name, 2 * DRAFTS)
        workers = {name: site.worker(name) for name in ("first", "second")}
        told = site.settle()
        wrong = _judge(told)
        wrong += [
            f"{len(p['looks'])} looks at one draft, and nothing had gone wrong"
            for p in told["proposals"]
            if len(p["looks"]) != 1
        ]
        for name, worker in workers.items():
            wrong += _stop(site, worker, name, chance)
    kind = f"two workers ({chance.name})"
    return result(
        kind=kind, what="two workers, one queue", ended=_ended(told), began=began, wrong=wrong
    )


def _owner(pid: int) -> str:
    """The process as `sandbox.reaper` would name it; "" if it has gone."""
    mine = reaper.me().split("|")
    started = reaper._started(pid)
    return "" if started == "gone" else "|".join([*mine[:2], str(pid), started])


def _judge(told: dict[str, Any]) -> list[str]:
    wrong = [f"the log: {problem}" for problem in told["log"]]
    for number, proposal in enumerate(told["proposals"]):
        verdicts = [v for v in proposal["verdicts"] if v != "could_not_look"]
        passed = proposal["state"] == "passed" and verdicts == ["passed"]
        if not passed and not (_given_up(proposal) and not verdicts):
            wrong.append(f"draft {number}: {proposal['state']}, {proposal['verdicts']}")
        if len(proposal["looks"]) > MOST_LOOKS:
            wrong.append(f"draft {number}: {len(proposal['looks'])} looks")
    return wrong


def _stop(site: Site, worker: subprocess.Popen[bytes], name: str, chance: Chance) -> list[str]:
    owner = _owner(worker.pid)
    worker.send_signal(signal.SIGTERM)
    try:
        code = worker.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()
        return [f"{name} did not stop in {STOP_SECONDS:.0f} s"]
    wrong = [f"{name} ended with {code}"] if code else []
    if "Traceback" in (words := site.words(name)):
        wrong.append(f"{name} printed a traceback: {words[-600:]}")
    return wrong + (nothing_left(chance, owner) if owner else [])


def _given_up(proposal: dict[str, Any]) -> bool:
    """Nobody could look, as often as is tried: a named state that waits for a person."""
    return len(proposal["looks"]) == MOST_LOOKS and "given up" in proposal["reason"]


def _ended(told: dict[str, Any]) -> str:
    return ", ".join(
        f"{p['state']} after {len(p['looks'])}"
        + (f" ({p['reason'][:300]})" if _given_up(p) else "")
        for p in told["proposals"]
    )
