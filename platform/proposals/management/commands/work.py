"""`manage.py work`: the worker. Screenings through Django's Tasks, and the periodic sweeps.

One process, three threads: the main one screens, one sweeps, so that nothing waits for a screening,
and one takes what has a queue of its own (images of packages, minutes each), so that no screening
waits for that. SIGTERM gives a look under way back, waits for an image that is being built, and
ends; a second one ends at once. A sweep that fails is reported and tried again; when it keeps
failing, or that other queue does, the worker ends with exit code 1.
"""

from __future__ import annotations

import logging
import threading
import time
from argparse import ArgumentParser
from types import FrameType
from typing import Any, TypeVar

from django.core.management.base import BaseCommand
from django.db import close_old_connections, connections
from django_tasks import DEFAULT_TASK_QUEUE_NAME
from django_tasks_db.management.commands.db_worker import Worker

from proposals import screening, sweeps
from sandbox import reaper
from sandbox.errors import InfrastructureError

log = logging.getLogger("escapement.work")
MAIN = DEFAULT_TASK_QUEUE_NAME
MAX_FAILURES = 5
PAUSE_SECONDS = 0.5


AnyWorker = TypeVar("AnyWorker", bound=Worker)


class GracefulWorker(Worker):
    """The library's worker, whose look under way is given back when it is asked to stop."""

    def shutdown(self, signum: int, frame: FrameType | None) -> None:
        """End after the task; tell the task."""
        screening.stopping.set()
        super().shutdown(signum, frame)


class Sweeper(threading.Thread):
    """Runs every sweep at its interval; `failed` is set when one keeps failing."""

    def __init__(self, worker: GracefulWorker) -> None:
        super().__init__(name="sweeps", daemon=True)
        self._worker = worker
        self._due = dict.fromkeys((name for name, _, _ in sweeps.SWEEPS), 0.0)
        self._failures = dict.fromkeys(self._due, 0)
        self.failed = ""

    def run(self) -> None:
        """Sweep until the worker stops."""
        while self._worker.running and not self.failed:
            close_old_connections()
            for name, function, seconds in sweeps.SWEEPS:
                if self._worker.running and time.monotonic() >= self._due[name]:
                    self._sweep(name, function, seconds)
            screening.stopping.wait(PAUSE_SECONDS)
        connections.close_all()

    def _sweep(self, name: str, function: Any, seconds: float) -> None:
        try:
            if done := function():
                log.info("%s: %s", name, done)
            self._failures[name] = 0
        except Exception as error:  # one sweep's trouble must not stop the others, nor be hidden
            self._failures[name] += 1
            log.error(
                "the sweep %r failed (%s in a row): %s",
                name,
                self._failures[name],
                error,
                exc_info=not isinstance(error, InfrastructureError),  # whose message says it all
            )
            if self._failures[name] >= MAX_FAILURES and name not in sweeps.NEED_AN_ENGINE:
                self.failed = name
                self._worker.running = False
        delay = seconds * 2 ** self._failures[name]
        self._due[name] = time.monotonic() + min(delay, 60.0)


class Aside(threading.Thread):
    """Takes the tasks of every queue but the main one; `failed` is set when it can't."""

    def __init__(self, worker: GracefulWorker, aside: Worker) -> None:
        super().__init__(name="other queues", daemon=True)
        self._worker, self._aside = worker, aside
        self.failed = ""

    def run(self) -> None:
        """Work until told to stop; a task's own trouble is its own, and does not come here."""
        try:
            self._aside.run()
        except Exception:
            log.exception("%s can't be taken", self.name)
            self.failed = self.name
            self._worker.running = False
        finally:
            connections.close_all()

    def stop(self) -> None:
        """No further task; waits for the one that is under way."""
        self._aside.running = False
        self.join()


class Command(BaseCommand):
    """Run the worker."""

    help = "Run the worker: screenings, activations, expiry, canaries, guarded mode."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The options."""
        parser.add_argument("--once", action="store_true", help="do what is waiting, then end")
        parser.add_argument("--interval", type=float, default=0.5, help="seconds between looks")

    def handle(self, *_: Any, **options: Any) -> None:
        """Work until told to stop."""
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        screening.stopping.clear()
        worker = _worker(GracefulWorker, options, queues=["*"] if options["once"] else [MAIN])
        worker.configure_signals()
        if options["once"]:
            sweeps.run_all()
            worker.run()
            sweeps.run_all()
            return
        aside = Aside(worker, _worker(Worker, options, queues=["*"], but=(MAIN,)))
        sweeper = Sweeper(worker)
        screening.workers.keep_ready = True
        sweeper.start()
        aside.start()
        self.stdout.write("working: screenings and sweeps")
        try:
            worker.run()
        finally:
            worker.running = False
            screening.stopping.set()
            screening.workers.close()
            sweeper.join(timeout=15)
            aside.stop()
        if sweeper.failed or aside.failed:
            raise SystemExit(1)


def _worker(
    kind: type[AnyWorker], options: dict[str, Any], *, queues: list[str], but: tuple[str, ...] = ()
) -> AnyWorker:
    return kind(
        queue_names=queues,
        interval=options["interval"],
        batch=options["once"],
        backend_name="default",
        startup_delay=False,
        max_tasks=None,
        worker_id=reaper.me(),
        excluded_queue_names=list(but),
    )
