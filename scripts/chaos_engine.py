"""Kills a Docker engine at random moments of screenings: one of its own, never the machine's.

    sudo .venv/bin/python scripts/chaos_engine.py [--times 10]

Starts `dockerd` on a socket and in folders of its own, screens an honest mechanism again and again
and kills it with SIGKILL on the way. Each screening has to end as passed or as could not look, and
after a restart nothing may be left. For a person to run: it needs root and takes minutes.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from sandbox import clearance  # noqa: E402
from sandbox.backends import engine, get_backend  # noqa: E402
from sandbox.draft import draft_from_files  # noqa: E402
from sandbox.errors import InfrastructureError  # noqa: E402
from sandbox.report import Draft, Outcome  # noqa: E402
from sandbox.screen import screen  # noqa: E402

START_SECONDS = 60
WHOLE_SECONDS = 3.0


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Engine:
    """A dockerd of our own below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.address = f"unix://{folder}/docker.sock"

    def start(self) -> None:
        """Start it and wait until it answers."""
        (self._folder / "docker.pid").unlink(missing_ok=True)
        folder = self._folder
        command = ["dockerd", "--host", self.address, "--data-root", str(folder / "data")]
        command += ["--exec-root", str(folder / "exec"), "--pidfile", str(folder / "docker.pid")]
        command += ["--bridge", "none", "--iptables=false", "--ip-forward=false"]
        log = (folder / "dockerd.log").open("ab")
        self._process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603 - our own
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                engine.connect()
                return
            except InfrastructureError as error:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    tail = (folder / "dockerd.log").read_text(errors="replace")[-800:]
                    raise SystemExit(f"the engine does not start: {error}\n{tail}") from error
                time.sleep(0.2)

    def kill(self) -> None:
        """As a crash would: no word, no cleaning up. Its containerd dies with it, and the file
        that names it would make the next engine wait for it."""
        if self._process:
            self._process.kill()
            self._process.wait()
        named = self._folder / "exec/containerd/containerd.pid"
        if named.exists():
            with suppress(ProcessLookupError):
                os.kill(int(named.read_text(encoding="ascii")), signal.SIGKILL)
            named.unlink()

    def clear(self) -> None:
        """End the helpers that a killed engine left, known by its folder, and unmount it."""
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if f"{self._folder}/".encode() in process.read_bytes():
                    os.kill(int(process.parent.name), signal.SIGKILL)
        rows = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
        places = [row.split()[1] for row in rows]
        for place in sorted((p for p in places if p.startswith(f"{self._folder}/")), reverse=True):
            subprocess.run(["umount", "--lazy", place], check=True)  # noqa: S603, S607

    def stop(self) -> None:
        """In peace."""
        if self._process and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(START_SECONDS)


def main() -> int:
    """Run it; 1 if a screening ended in a wrong state or left something."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--times", type=int, default=10)
    times = parser.parse_args().times
    paths = ("mechanisms/tabu.py", "tests/test_tabu.py")
    draft = draft_from_files({p: (ROOT / "mechanisms_repo" / p).read_bytes() for p in paths})
    with tempfile.TemporaryDirectory(prefix="escapement-chaos-") as folder:
        own = Engine(Path(folder))
        os.environ["DOCKER_HOST"] = own.address
        try:
            own.start()
            clearance.require(get_backend("docker", progress=say))
            wrong = [_one(own, draft, number) for number in range(times)]
            return 1 if any(wrong) else 0
        finally:
            own.stop()
            own.clear()


def _one(own: Engine, draft: Draft, number: int) -> bool:
    """One screening with a crash in it; whether something was wrong."""
    moment = random.Random(number).uniform(0, WHOLE_SECONDS)  # noqa: S311 - no secret
    killer = threading.Timer(moment, own.kill)
    backend = get_backend("docker")
    killer.start()
    report = screen(draft, backend=backend)
    killer.join()
    own.start()
    backend = get_backend("docker")
    # What this very process owns is not reaped while it lives: a worker ends itself when the host
    # hangs up, and the engine ends what it finds running after a crash.
    left = engine.connect().containers(filters={"label": ["escapement.sandbox=1"]})
    wrong = report.outcome not in (Outcome.PASSED, Outcome.COULD_NOT_LOOK) or bool(left)
    unseen = [c.name for c in report.checks if c.outcome is Outcome.COULD_NOT_LOOK]
    say(
        f"{number}: killed after {moment:.2f} s: {report.outcome} {unseen}, {len(left)} running"
        f"{'  WRONG' if wrong else ''}"
    )
    return wrong


if __name__ == "__main__":
    sys.exit(main())
