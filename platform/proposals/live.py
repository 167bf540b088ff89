"""Change notices for open pages, as server-sent events.

A page names a topic and the stamp that it was rendered with; a notice is sent when the stamp
moves. A stamp is made of a few cheap aggregates, read at most once a second for all readers, so
nothing is lost between render and connection, nor between two connections: the stamp is the
event's id. Notices carry no data; the page fetches its own part again, with its own rights.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from asgiref.sync import sync_to_async
from audit.canonical import text
from audit.models import Entry
from django.core.handlers.asgi import ASGIRequest
from django.db import close_old_connections
from django.db.models import Count, Max, Min, QuerySet
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from runs.models import Run, Runner, Target, Trial

from proposals import standing
from proposals.models import (
    Activation,
    PolicyVersion,
    Proposal,
    Review,
    Screening,
    Stop,
    StopRelease,
)

TICK_SECONDS = 1.0
LIFE_SECONDS = 300  # then the browser connects again, with its cookie checked again
PING_SECONDS = 15
MAX_CONNECTIONS = 100

_cache: dict[str, tuple[float, str]] = {}
_lock = threading.Lock()
_open = 0


def stamp(topic: str) -> str:
    """What `topic` looks like now, as sixteen digits; at most once a second."""
    now = time.monotonic()
    with _lock:
        made, value = _cache.get(topic, (0.0, ""))
    if value and now - made < TICK_SECONDS * 0.9:
        return value
    value = fresh_stamp(topic)
    with _lock:
        if len(_cache) > 1000:
            _cache.clear()
        _cache[topic] = (now, value)
    return value


def fresh_stamp(topic: str) -> str:
    """The stamp, read now. Raises LookupError for a topic that nobody knows."""
    kind, _, key = topic.partition(":")
    if kind not in _TOPICS:
        raise LookupError(topic)
    parts = [_TOPICS[kind](key), _stops()]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def watched(topic: str, view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """`view` as a page that renews itself when `topic` moves, in which `{NAME}` is what the address
    names so. The stamp is read before anything that the page shows: what changes between the two
    is shown again, where it would be missed the other way round."""

    @functools.wraps(view)
    def page(request: HttpRequest, **named: Any) -> HttpResponse:
        topics = topic.format(**named)
        request.watched = {"topics": topics, "since": stamp(topics)}  # type: ignore[attr-defined]
        try:
            return view(request, **named)
        except BaseException:
            del request.watched  # type: ignore[attr-defined]  # the page of an error stays
            raise

    return page


def live(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    """The stream of one page. 204 tells the browser to stop asking: the page then polls."""
    topic = text(request.GET.get("topics", ""))[:100]
    since = request.headers.get("Last-Event-ID", request.GET.get("since", ""))[:16]
    if not isinstance(request, ASGIRequest):
        return HttpResponse(status=204)  # only an asynchronous server can hold streams open
    try:
        stamp(topic)
    except LookupError:
        return HttpResponse("no such topic", status=404, content_type="text/plain")
    if _open >= MAX_CONNECTIONS:
        return HttpResponse(status=204)
    response = StreamingHttpResponse(_stream(topic, since), content_type="text/event-stream")
    response["Cache-Control"] = "no-store"
    response["X-Accel-Buffering"] = "no"
    return response


async def _stream(topic: str, since: str) -> AsyncIterator[bytes]:
    global _open  # noqa: PLW0603 - one counter for the process; the event loop is its only writer
    _open += 1
    try:
        yield b"retry: 2000\n: connected\n\n"
        started = spoke = time.monotonic()
        while time.monotonic() - started < LIFE_SECONDS:
            now = await sync_to_async(_read)(topic)
            if now != since:
                since, spoke = now, time.monotonic()
                yield f"event: changed\nid: {now}\ndata: {topic}\n\n".encode()
            elif time.monotonic() - spoke > PING_SECONDS:
                spoke = time.monotonic()
                yield b": still here\n\n"
            await asyncio.sleep(TICK_SECONDS)
    finally:
        _open -= 1


def _read(topic: str) -> str:
    try:
        return stamp(topic)
    finally:
        close_old_connections()


def _newest(rows: QuerySet[Any], *fields: str) -> tuple[object, ...]:
    return tuple(rows.aggregate(n=Count("pk"), **{f: Max(f) for f in fields}).values())


def _stops() -> object:
    released = Stop.objects.filter(released_at__isnull=False).count()
    return (Stop.objects.count(), released, StopRelease.objects.count())


def _screenings(rows: QuerySet[Screening]) -> object:
    newest = rows.order_by("-pk").values_list("pk", "phase", "progress", "outcome").first()
    return (newest, rows.count())


def _all_proposals(_key: str) -> object:
    running = Screening.objects.filter(phase__in=["queued", "running"])
    return (
        _newest(Proposal.objects.all(), "changed_at"),
        list(running.order_by("pk").values_list("pk", "phase", "progress")),
        _newest(Review.objects.all(), "pk"),
        PolicyVersion.objects.count(),
        [(r.name, r.observed_state, standing.is_stale(r)) for r in Runner.objects.all()],
    )


def _one_proposal(key: str) -> object:
    number = int(key) if key.isdecimal() else 0
    reviews = Review.objects.filter(proposal=number).values_list("pk", "standing")
    activations = Activation.objects.filter(proposal=number).values_list("pk", "state")
    digest = Proposal.objects.filter(pk=number).values_list("digest", "changed_at").first()
    trials = Trial.objects.filter(digest=digest[0]).count() if digest else 0
    screenings = Screening.objects.filter(proposal=number)
    latest = PolicyVersion.objects.values_list("pk").first()
    return (digest, _screenings(screenings), list(reviews), list(activations), trials, latest)


def _targets(key: str) -> object:
    targets = Target.objects.filter(name=key) if key else Target.objects.all()
    runners = Runner.objects.filter(target__in=targets)
    return (
        list(targets.values_list("desired_version", "live_version")),
        [(r.observed_version, r.observed_state, r.activity, r.seen_at, standing.is_stale(r))
         for r in runners],
        list(Activation.objects.filter(target__in=targets).values_list("pk", "state")[:20]),
        PolicyVersion.objects.count(),
    )  # fmt: skip


def _runs(key: str) -> object:
    if not key:
        return (_newest(Run.objects.all(), "updated_at"), Trial.objects.count())
    runs = Run.objects.filter(pk=int(key) if key.isdecimal() else 0)
    trials = Trial.objects.filter(run__in=runs)
    drafts = Proposal.objects.filter(run__in=runs).values_list("pk", "state")
    activity = list(Runner.objects.filter(runs__in=runs).values_list("activity"))
    return (_newest(runs, "updated_at"), trials.count(), list(drafts), activity)


def _audit(_key: str) -> object:
    return Entry.objects.aggregate(last=Max("seq"), first=Min("seq"))


_TOPICS: dict[str, Callable[[str], object]] = {
    "inbox": _all_proposals,
    "proposals": _all_proposals,
    "proposal": _one_proposal,
    "targets": _targets,
    "target": _targets,
    "runs": _runs,
    "run": _runs,
    "audit": _audit,
    "policy": lambda _key: PolicyVersion.objects.count(),
}


def add(kind: str, looks_like: Callable[[str], object]) -> None:
    """A topic of another app, registered while the apps start."""
    _TOPICS[kind] = looks_like


def also(kind: str, looks_like: Callable[[str], object]) -> None:
    """A topic that is there moves with this too."""
    before = _TOPICS[kind]
    _TOPICS[kind] = lambda key: (before(key), looks_like(""))
