"""`make demo`: web server, worker and runner under one parent, until Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType

from django.conf import settings

from proposals.demo import stage
from proposals.demo.children import ChildFailed, Family
from proposals.demo.console import Console

LOOK_SECONDS = 0.3


class Stop:
    """SIGINT and SIGTERM: the first asks to stop, the second stops at once."""

    def __init__(self, console: Console) -> None:
        self.asked = threading.Event()
        self._console = console
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._take)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.asked.is_set():
            raise SystemExit(130)  # the kernel ends the children with us
        self.asked.set()


def run(port: int) -> int:
    """Run the demo until it is stopped. Gives the exit code."""
    console = Console(sys.stdout)
    stop = Stop(console)
    url = f"http://{stage.HOST}:{port}"
    try:
        lock = stage.take_lock()
        stage.check_port(port)
        credentials, passwords = stage.set_up(console, url)
    except stage.StageError as error:
        console.error(str(error))
        return 1
    options = ("--trials", "400", "--budget-seconds", "4", "--level2-every", "4")
    web = stage.web(console, port)
    runner = stage.runner(console, credentials, settings.VAR / "runs" / "demo", options)
    family = Family([runner, stage.worker(console), web], console)
    try:
        console.say("starting web server, worker and runner")
        web.start()
        stage.wait_for_web(web, url)
        for child in family.children:
            if not child.running:
                child.start()
        welcome(console, url, passwords)
        while not stop.asked.wait(LOOK_SECONDS):
            family.look()
        return 0
    except (ChildFailed, stage.StageError) as error:
        console.error(str(error))
        return 1
    finally:
        family.stop()
        stage.reap(console)
        console.say("all stopped; `make demo` goes on where this ended")
        lock.close()


def welcome(console: Console, url: str, passwords: dict[str, str]) -> None:
    """Where to go, and with which password: shown once, at the first start."""
    console.say(f"ready: {url}   (Ctrl-C stops everything)")
    if passwords:
        console.line("demo", "the passwords of the demo people are shown this once:")
        for name, password in passwords.items():
            console.line("demo", f"    {name:<10} {password}")
    else:
        console.line("demo", "log in as ada, grace (reviewers), katherine (auditor), linus")
        console.line("demo", "forgot a password? .venv/bin/python manage.py changepassword ada")
