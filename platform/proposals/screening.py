"""Looking: the task that takes a queued screening, runs the sandbox, and hands the report over.

Nothing here says what a report means (`screenings.finish` asks the policy). Whatever goes wrong on
our side is "could not look", never a pass.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.db import OperationalError
from django.utils import timezone
from django_tasks import task
from django_tasks.base import TaskResultStatus
from django_tasks_db.models import DBTaskResult

from proposals import branches, hooks, operators, screenings
from proposals.acts import Denied, allowed
from proposals.models import Screening
from sandbox import reaper
from sandbox.backends import get_backend
from sandbox.backends.base import Backend
from sandbox.errors import InfrastructureError
from sandbox.pool import WarmBackend
from sandbox.report import Draft
from sandbox.screen import screen

LOST_SECONDS = 20
log = logging.getLogger(__name__)
stopping = threading.Event()
"""Set by the worker when it is asked to stop: a look under way is given back."""


class Workers:
    """Where a look gets its sandbox from: ready workers in `manage.py work`, else cold ones."""

    def __init__(self) -> None:
        self.keep_ready = False
        self._pool: WarmBackend | None = None

    def backend(self) -> Backend:
        """The sandbox of now: another image or engine makes another pool. Raises
        InfrastructureError where no engine answers."""
        hooks.require_lock()
        found = get_backend(settings.SANDBOX_BACKEND)
        if not self.keep_ready:
            return found
        if self._pool is not None and self._pool.fingerprint != found.fingerprint:
            self._end_pool()
        if self._pool is None:
            self._pool = WarmBackend(found)
        return self._pool

    def close(self) -> None:
        """End what was kept ready."""
        self.keep_ready = False
        self._end_pool()

    def _end_pool(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()


workers = Workers()


@task()
def look(screening_id: int) -> str:
    """Screen one proposal's commit; says in a word what came of it."""
    screening = screenings.claim(screening_id)
    if screening is None:
        return "not to be had"
    try:
        report = screen(
            draft_of(screening),
            backend=workers.backend(),
            library=library_of(),
            progress=lambda words: _progress(screening_id, words),
            cancelled=lambda: _cancelled(screening_id),
        )
        if stopping.is_set():
            words = "the worker was stopped"
            return screenings.could_not_look(screening_id, words, given_back=True).outcome
        if _cancelled(screening_id):
            return "cancelled"
        return screenings.finish(screening_id, report).outcome
    except Exception as error:
        if stopping.is_set():  # whatever broke on the way out is no word about the draft
            words = "the worker was stopped"
            return screenings.could_not_look(screening_id, words, given_back=True).outcome
        if _cancelled(screening_id):
            return "cancelled"
        if isinstance(error, InfrastructureError):
            log.error("screening %s could not look: %s", screening_id, error)
        else:
            log.exception("screening %s could not look", screening_id)
        return screenings.could_not_look(screening_id, f"{type(error).__name__}: {error}").outcome


def draft_of(screening: Screening) -> Draft:
    """The draft's files, from git, at exactly the commit that the screening is about."""
    proposal = screening.proposal
    changed = branches.living().changed(proposal.base_commit, screening.commit)
    files = {path: data for path, data in changed.items() if data is not None}
    draft = Draft(mechanism_path=proposal.mechanism_path, files=files)
    if draft.digest != proposal.digest:
        raise Denied("wrong_digest", "the branch does not hold the bytes that were submitted")
    return draft


def library_of() -> dict[str, bytes]:
    """The approved operators that count, by name."""
    good, _ = operators.approved()
    return {name: operator.source for name, operator in good.items()}


def _progress(screening_id: int, words: str) -> None:
    log.info("screening %s: %s", screening_id, words)
    try:
        screenings.progress(screening_id, words)
    except OperationalError as error:  # the database is busy: the next step says more
        log.warning("screening %s: progress not stored: %s", screening_id, error)


def _cancelled(screening_id: int) -> bool:
    if stopping.is_set():
        return True
    running = Screening.objects.filter(pk=screening_id, phase=Screening.Phase.RUNNING)
    return not running.exists()


def enqueue(*, screening_id: int, delay_seconds: int = 0, **_: Any) -> None:
    """Give a queued screening to the workers."""
    if delay_seconds:
        later = timezone.now() + timedelta(seconds=delay_seconds)
        look.using(run_after=later).enqueue(screening_id)
    else:
        look.enqueue(screening_id)


def end_dead(task_path: str) -> Iterator[list[Any]]:
    """The arguments of each task of that path whose worker was a process of this machine and is
    dead; the task is over by then. Which process had it is what its worker id says."""
    held = DBTaskResult.objects.filter(task_path=task_path, status=TaskResultStatus.RUNNING)
    for row in held.order_by("started_at"):
        if row.worker_ids and reaper.is_orphan(row.worker_ids[-1], running=False):
            row.set_failed(InfrastructureError("the worker that had it died"))
            yield row.args_kwargs["args"]


def give_up_dead() -> int:
    """Looks whose worker is dead: take them up again at once, without waiting for a silence."""
    done = 0
    for (screening_id,) in end_dead(look.module_path):
        phase = Screening.Phase.RUNNING
        if Screening.objects.filter(pk=screening_id, phase=phase).exists():
            words = "the worker that looked died"
            done += allowed(partial(screenings.could_not_look, screening_id, words))
    return done


def enqueue_lost() -> int:
    """Queued screenings that no task knows of (a crash between the two): enqueue them again."""
    since = timezone.now() - timedelta(seconds=LOST_SECONDS)
    queued = Screening.objects.filter(phase=Screening.Phase.QUEUED, created_at__lt=since)
    waiting = DBTaskResult.objects.filter(
        task_path=look.module_path, status=TaskResultStatus.READY
    ).values_list("args_kwargs", flat=True)
    known = {row["args"][0] for row in waiting}
    lost = [pk for pk in queued.values_list("pk", flat=True) if pk not in known]
    for pk in lost:
        enqueue(screening_id=pk)
    return len(lost)
