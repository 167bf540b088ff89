"""Makes sure that a Docker engine answers: installs and starts Debian's where it may.

Says what it does before it does it. Where it may not, it names the one command to run. It never
stops or reconfigures an engine that is there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import docker
from docker.errors import DockerException

ROOT = Path(__file__).resolve().parents[1]
LOG = ROOT / "var" / "dockerd.log"
START_SECONDS = 60
# pid file -> name of the process that must be behind it
PID_FILES = {
    Path("/var/run/docker.pid"): "dockerd",
    Path("/var/run/docker/containerd/containerd.pid"): "containerd",
}


def say(text: str) -> None:
    sys.stderr.write(f"\033[36m==>\033[0m {text}\n")
    sys.stderr.flush()


def give_up(problem: str, fix: str) -> NoReturn:
    sys.exit(f"No Docker engine: {problem}\nRun this, then call make again:\n    {fix}")


def answer() -> str:
    """Empty if an engine answers, else what is wrong."""
    try:
        client = docker.from_env(timeout=5)
        try:
            client.ping()
        finally:
            client.close()
    except (DockerException, OSError) as error:
        return str(error)
    return ""


def process_name(pid: str) -> str:
    """The name of a running process, or empty."""
    try:
        return Path("/proc", str(int(pid)), "comm").read_text().strip()
    except (OSError, ValueError):
        return ""


def clear_stale_pid_files() -> None:
    """A killed engine leaves pid files; a new one would refuse to start if the pid is reused."""
    for path, name in PID_FILES.items():
        if path.exists() and process_name(path.read_text().strip()) != name:
            say(f"removing {path}: its process is gone")
            path.unlink()


def start() -> None:
    """Start the installed engine: as a service under systemd, else as a process of its own."""
    if Path("/run/systemd/system").is_dir():
        say("starting the engine: systemctl start docker")
        subprocess.run(["systemctl", "start", "docker"], check=False)  # noqa: S607
        return
    clear_stale_pid_files()
    LOG.parent.mkdir(parents=True, exist_ok=True)
    say(f"starting the engine as a process of its own (log: {LOG})")
    with LOG.open("ab") as log:
        subprocess.Popen(  # noqa: S603
            [str(shutil.which("dockerd"))],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C in this terminal is not meant for it
            cwd="/",
        )


def wait() -> str:
    """Wait for an answer, within a bound; empty, or the last problem."""
    began = time.monotonic()
    while problem := answer():
        waited = time.monotonic() - began
        if waited > START_SECONDS:
            return problem
        time.sleep(1)
        if int(waited) % 5 == 4:
            say(f"waiting for the engine ({int(waited)} s of {START_SECONDS} s)")
    return ""


def running() -> bool:
    """Is a dockerd there, even one that does not answer yet?"""
    return any(process_name(p.name) == "dockerd" for p in Path("/proc").glob("[0-9]*"))


def main() -> None:
    problem = answer()
    if not problem:
        return
    if os.environ.get("DOCKER_HOST"):
        give_up(f"DOCKER_HOST={os.environ['DOCKER_HOST']}: {problem}", "unset DOCKER_HOST")
    root = os.geteuid() == 0
    if not shutil.which("dockerd"):
        if not root or not shutil.which("apt-get"):
            give_up("none is installed", "sudo apt-get install -y docker.io")
        say("no Docker engine is installed; installing Debian's docker.io")
        subprocess.run([str(ROOT / "scripts" / "debian_packages"), "docker.io"], check=True)  # noqa: S603
        problem = answer()  # on a usual Debian the package starts its service
    if problem and "Permission denied" in problem:
        give_up("this account may not use it", 'sudo usermod -aG docker "$USER" && newgrp docker')
    if problem and not running():
        if not root:
            give_up("it is not running", "sudo systemctl start docker")
        start()
    if problem and (problem := wait()):
        where = f"tail -50 {LOG}" if LOG.exists() else "journalctl -u docker -n 50"
        give_up(f"it did not answer within {START_SECONDS} s: {problem}", where)
    say("the Docker engine answers")


if __name__ == "__main__":
    main()
