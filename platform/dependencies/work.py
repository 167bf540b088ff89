"""The worker's part: making a request's record, and building an approved one.

Both are tasks that can be lost and given again: `record` only ever moves a request that was asked,
`build` claims it first. Whatever goes wrong is a named state with its reason; nothing is adopted
by half. Nothing here decides: `builds.adopt` checks everything once more. They have a queue of
their own, which the worker takes in a thread of its own: an image takes minutes, and no screening
waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.db import OperationalError
from django.db.models import Q
from django.utils import timezone
from django_tasks import task
from django_tasks.base import TaskResultStatus
from django_tasks_db.models import DBTaskResult
from proposals import screening
from proposals.acts import Denied, allowed

from dependencies import adopted, builds, decisions, verbs
from dependencies.models import DependencyRequest
from dependencies.states import State
from sandbox import clearance, depreq, doctor, image, opened, sbom, vulnerabilities
from sandbox import lock as locks
from sandbox.backends import get_backend
from sandbox.backends.base import Backend
from sandbox.errors import ImageMissing, InfrastructureError, MechanismFailure
from sandbox.host import MechanismHost
from sandbox.limits import Limits
from sandbox.lock import Lock
from sandbox.wheel_facts import RequestError
from sandbox.wheels import Trouble, WheelError

QUEUE = "packages"  # in the settings too
RECORD_ATTEMPTS = 4
BACKOFF_SECONDS = (10, 60, 300)
LOST_SECONDS = 30
REBUILD_SECONDS = 120  # between two tries to make a lost image again
log = logging.getLogger(__name__)
Tell = Callable[[str], None]


class BuildFailed(Exception):
    """Why nothing is adopted; `code` is stable, the message says what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


# --- the record ---


@task(queue_name=QUEUE)
def record(request_id: int) -> str:
    """Fetch what would come in and store what it is; says in a word what came of it."""
    request = DependencyRequest.objects.filter(pk=request_id, state=State.ASKED).first()
    if request is None:
        return "not to be had"
    verbs.progress(request_id, "fetching the package and what it needs")
    try:
        made = depreq.examine(
            request.pin,
            now=datetime.now(UTC),
            lock=adopted.lock_in_force(),
            modules=opened.parse(request.modules),
            keep=True,
        )
        return str(verbs.record(request_id=request_id, made=made).state)
    except Denied as denied:
        return denied.code  # somebody else recorded it, or it was withdrawn meanwhile
    except WheelError as error:
        if error.code is Trouble.INDEX_AWAY and _again_later(request, str(error)):
            return "again later"
        return _refused(request_id, error.code, str(error))
    except (RequestError, opened.OpenedError) as error:
        return _refused(request_id, getattr(error, "code", "modules"), str(error))
    except Exception as error:
        log.exception("request %s: no record", request_id)
        if _again_later(request, f"{type(error).__name__}: {error}"):
            return "again later"
        return _refused(request_id, "failed", f"{type(error).__name__}: {error}"[:1000])


def _again_later(request: DependencyRequest, words: str) -> bool:
    """Queue another try, within a bound."""
    attempt = request.attempt + 1
    if attempt >= RECORD_ATTEMPTS:
        return False
    delay = BACKOFF_SECONDS[min(request.attempt, len(BACKOFF_SECONDS) - 1)]
    mine = DependencyRequest.objects.filter(pk=request.pk, state=State.ASKED)
    mine.update(attempt=attempt, progress=f"trying again in {delay} s: {words}"[:300])
    record.using(run_after=timezone.now() + timedelta(seconds=delay)).enqueue(request.pk)
    return True


def _refused(request_id: int, code: str, message: str) -> str:
    try:
        return str(verbs.refuse(request_id=request_id, code=code, message=message).state)
    except Denied as denied:
        return denied.code


# --- the image ---


@task(queue_name=QUEUE)
def build(request_id: int) -> str:
    """Build, try and adopt an approved request; says in a word what came of it."""
    request = builds.begin(request_id)
    if request is None:
        return "not to be had"

    def tell(words: str) -> None:
        log.info("request %s: %s", request_id, words)
        try:
            verbs.progress(request_id, words)
        except OperationalError as error:  # the database is busy: the next step says more
            log.warning("request %s: progress not stored: %s", request_id, error)

    try:
        built = make(request, tell)
        builds.adopt(request_id=request_id, built=built)
    except BuildFailed as error:
        return _failed(request_id, error.code, str(error))
    except WheelError as error:
        return _failed(request_id, error.code, str(error))
    except Denied as denied:
        return _failed(request_id, denied.code, denied.message)
    except InfrastructureError as error:
        return _failed(request_id, "infrastructure", str(error))
    except Exception as error:
        log.exception("request %s: the build failed", request_id)
        return _failed(request_id, "failed", f"{type(error).__name__}: {error}"[:1000])
    return "adopted"


def _failed(request_id: int, code: str, message: str) -> str:
    try:
        return str(builds.fail(request_id=request_id, code=code, message=message).state)
    except Denied as denied:
        return denied.code  # it was given up meanwhile: nothing to say


def make(request: DependencyRequest, tell: Tell) -> builds.Built:
    """The image of the approved lock, tried; nothing is in force by it. Raises BuildFailed,
    InfrastructureError."""
    lock = locks.parse(request.lock_text.encode())
    if lock.digest != request.lock_after:
        raise BuildFailed("wrong_digest", "the lock is not the one that was approved")
    with locks.using(lock):
        backend = get_backend(settings.SANDBOX_BACKEND, progress=tell)
        controls = doctor.examine(tell, backend=backend)
        if wrong := [c for c in controls if not c.ok]:
            said = "; ".join(f"{c.control}: {c.what_to_do}" for c in wrong[:3])
            raise BuildFailed("doctor", f"a control does not hold in the new image: {said}")
        clearance.record(backend, controls)
        tell("importing what it opens, in the sandbox")
        _try_modules(backend, request.record["modules"])
        loaded = _try_live(backend, tell)
        tell("auditing the new lock")
        scan = _audited(lock)
        return builds.Built(
            image_id=backend.image_id,
            image_name=image.tag(),
            sbom=sbom.text(),
            scan=scan,
            controls=len(controls),
            loaded=loaded,
        )


def _try_modules(backend: Backend, modules: dict[str, list[str]]) -> None:
    """The opened modules import under the full posture, and have the names that were approved."""
    source = opened.probe(modules)
    try:
        with MechanismHost.start(
            backend, source, name="draft", limits=Limits.screening(), purpose="opened modules"
        ) as host:
            seen = host.state()
    except MechanismFailure as failure:
        raise BuildFailed(
            "does_not_import", f"what it opens can't be imported in the sandbox: {failure}"
        ) from failure
    if seen != {"missing": [], "modules": []}:
        raise BuildFailed(
            "other_names",
            f"the package is not what its source says: missing {seen.get('missing')}, modules "
            f"among the names {seen.get('modules')}. Ask again and name what is wanted.",
        )


def _try_live(backend: Backend, tell: Tell) -> tuple[str, ...]:
    """What is live still loads in the new image."""
    loaded = []
    for target, name, source in builds.live_mechanisms():
        tell(f"loading {name}, live on {target}")
        try:
            MechanismHost.start(
                backend, source, name=name, limits=Limits.screening(), purpose="adoption"
            ).close()
        except MechanismFailure as failure:
            raise BuildFailed(
                "breaks_live", f"{name}, live on {target}, no longer loads: {failure}"
            ) from failure
        loaded.append(f"{target}: {name}")
    return tuple(loaded)


def _audited(lock: Lock) -> dict[str, Any]:
    """What is known against the whole lock; the policy says what of it counts."""
    return vulnerabilities.current(lock.lines()).to_data(datetime.now(UTC))


# --- an image that is gone ---


@task()
def rebuild() -> str:
    """Make the image of the lock in force again, where it is gone; says in a word what came."""
    try:
        adopted.require()
        get_backend(settings.SANDBOX_BACKEND, progress=log.info)
    except InfrastructureError as error:
        log.error("the sandbox image could not be made again: %s", error)
        return "could not"
    return "there"


def image_is_there() -> int:
    """Screenings say "could not look" while the image is gone; have it made again.

    Only a worker that goes on asks: a single look (`work --once`) says what it sees.
    """
    if not screening.workers.keep_ready:
        return 0
    try:
        get_backend(settings.SANDBOX_BACKEND)
    except ImageMissing as error:
        now = timezone.now()
        lately = DBTaskResult.objects.filter(task_path=rebuild.module_path).exclude(
            Q(finished_at__lt=now - timedelta(seconds=REBUILD_SECONDS))
            | Q(status=TaskResultStatus.RUNNING, started_at__lt=now - builds.SILENT)
        )
        if lately.exists():
            return 0
        log.warning("%s It is made again.", error)
        rebuild.enqueue()
        return 1
    except InfrastructureError:
        return 0  # no engine: nothing to do here, and every screening says so
    return 0


# --- now and then ---


def settle() -> int:
    """The lock's file follows what was adopted."""
    return adopted.settle()


def refresh() -> int:
    """Whatever waits and no longer fits the lock, the policy or its day."""
    done, now = 0, timezone.now()
    waiting = [State.IN_REVIEW, State.APPROVED, State.BUILD_FAILED]
    for request in DependencyRequest.objects.filter(state__in=[State.ASKED, *waiting]):
        if request.expires_at <= now:
            done += allowed(partial(verbs.expire, request_id=request.pk))
        elif request.state == State.ASKED:
            continue
        elif moved := decisions.drift(request):
            done += allowed(partial(verbs.renew, request_id=request.pk, reason=moved))
        elif why := decisions.unbound(request):
            done += allowed(partial(decisions.void, request_id=request.pk, reason=why))
    silent = DependencyRequest.objects.filter(
        state=State.BUILDING, claimed_at__lt=now - builds.SILENT
    )
    for request in silent:
        done += allowed(
            partial(
                builds.fail,
                request_id=request.pk,
                code="silent",
                message="the worker that built it fell silent",
            )
        )
    return done


def give_up_dead() -> int:
    """What a worker that died had in hand: a record is made again, a build has failed."""
    done = len(list(screening.end_dead(rebuild.module_path)))
    done += len(list(screening.end_dead(record.module_path)))  # `enqueue_lost` gives it again
    for (request_id,) in screening.end_dead(build.module_path):
        if DependencyRequest.objects.filter(pk=request_id, state=State.BUILDING).exists():
            words = "the worker that built it died"
            fail = partial(builds.fail, request_id=request_id, code="died", message=words)
            done += allowed(fail)
    return done


def enqueue_lost() -> int:
    """Requests that no task knows of (a crash between the two, or a worker of another machine that
    fell silent): give them to the worker again."""
    now, done = timezone.now(), 0
    since = now - timedelta(seconds=LOST_SECONDS)
    for what, state in ((record, State.ASKED), (build, State.APPROVED)):
        running = Q(status=TaskResultStatus.RUNNING, started_at__gte=now - builds.SILENT)
        open_tasks = DBTaskResult.objects.filter(
            running | Q(status=TaskResultStatus.READY), task_path=what.module_path
        ).values_list("args_kwargs", flat=True)
        known = {row["args"][0] for row in open_tasks if row["args"]}
        lost = DependencyRequest.objects.filter(state=state, changed_at__lt=since)
        for pk in lost.exclude(pk__in=known).values_list("pk", flat=True):
            what.enqueue(pk)
            done += 1
    return done


def enqueue_record(*, request_id: int, **_: Any) -> None:
    """A request was asked: give it to the worker."""
    record.enqueue(request_id)


def enqueue_build(*, request_id: int, **_: Any) -> None:
    """A request was approved: give it to the worker."""
    build.enqueue(request_id)


def settle_now(**_: Any) -> None:
    """A lock came into force in this process: the file follows at once, or the sweep does it."""
    try:
        adopted.settle()
    except (InfrastructureError, OSError):
        log.exception("the lock's file could not be written: the worker tries again")
