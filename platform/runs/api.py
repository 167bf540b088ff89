"""The runner's door, first half: tokens, limits, error answers; runs and trials.

`proposals.api` adds desired state, attestations and drafts. Routers of django-ninja; whoever
mounts them gets the same strictness: no unknown field, no NaN, no body over the limit.
"""

from __future__ import annotations

import json
from typing import Any

from audit import log
from audit.actors import SYSTEM, Actor, ActorKind
from audit.canonical import text
from django.db import DataError, transaction
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI, Router
from ninja.errors import ValidationError
from ninja.parser import Parser
from ninja.security import HttpBearer

from runner.protocol import MAX_BODY_BYTES, Ack, Memory, Refusal, RunReport, TrialBatch
from runs import ingest, limits, memory, tokens
from runs.ingest import Contradiction
from runs.models import Runner

FAILURES_AUDITED_A_MINUTE = 5
REFUSALS_A_MINUTE = 120
STATUS = {
    "stale_base": 409, "name_exists": 409, "conflict": 409, "gap": 409, "wrong_digest": 409,
    "unknown_version": 409, "too_large": 413, "too_many_open": 429, "not_found": 404,
    "not_a_person": 403,
}  # fmt: skip


class DoorError(Exception):
    """A request that is answered with `{"error", "message"}` and its status."""

    def __init__(self, code: str, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.code, self.message = code, message
        self.status = status or STATUS.get(code, 422)


class StrictParser(Parser):
    """JSON without NaN and without depth tricks, of a bounded size."""

    def parse_body(self, request: HttpRequest) -> Any:
        """The body as data. Raises DoorError."""
        try:
            return json.loads(body_of(request), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise DoorError("invalid", f"the body is no JSON: {str(error)[:200]}") from error


def body_of(request: HttpRequest) -> bytes:
    """The body, if it is inside the limit."""
    check_length(request)
    body = request.body
    if len(body) > MAX_BODY_BYTES:
        raise DoorError("too_large", f"a body has at most {MAX_BODY_BYTES} bytes")
    return body


def check_length(request: HttpRequest) -> None:
    """Refuse a body that says it is too long, or does not say, before it is read."""
    length = request.headers.get("Content-Length", "")
    if not length.isdigit() or len(length) > 9 or int(length) > MAX_BODY_BYTES:
        raise DoorError("too_large", f"a body says its length, at most {MAX_BODY_BYTES} bytes")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


class RunnerToken(HttpBearer):
    """`Authorization: Bearer TOKEN`; failures are on the audit log, a few a minute."""

    def __call__(self, request: HttpRequest) -> Runner:
        """The runner. Raises DoorError 401."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        try:
            if scheme.lower() != "bearer":
                raise tokens.BadToken("send `Authorization: Bearer TOKEN`")
            runner = tokens.authenticate(token.strip())
        except tokens.BadToken as problem:
            audit_failure(request, str(problem), problem.runner)
            raise DoorError("bad_token", str(problem), 401) from problem
        if limits.counted(_refusals(runner)) >= REFUSALS_A_MINUTE:
            raise DoorError("slow_down", "too much of yours was refused: wait a minute", 429)
        vars(request)["auth"] = runner  # whose body is refused is known to the handlers
        if request.method == "POST":
            check_length(request)
        return runner

    def authenticate(self, request: HttpRequest, token: str) -> Runner:
        """Not reached: `__call__` does it all."""
        return tokens.authenticate(token)


def audit_failure(request: HttpRequest, message: str, runner: Runner | None) -> None:
    """Log a failed authorisation, at most a few a minute from one address."""
    address = text(request.META.get("REMOTE_ADDR", ""))[:60]
    count = limits.count(f"door-failures:{address}", 60)
    if count > FAILURES_AUDITED_A_MINUTE:
        return
    with transaction.atomic():
        log.append(
            actor=SYSTEM,
            verb="runner.auth_failed",
            subject=f"runner:{runner.name if runner else 'unknown'}",
            target=runner.target.name if runner else "",
            data={
                "message": message,
                "address": address,
                "path": text(request.path)[:200],
                "further_not_logged": count == FAILURES_AUDITED_A_MINUTE,
            },
        )


def runner_of(request: HttpRequest) -> Runner:
    """Who is asking; the routes here are behind `RunnerToken`."""
    runner = getattr(request, "auth", None)
    if not isinstance(runner, Runner):
        raise DoorError("bad_token", "send `Authorization: Bearer TOKEN`", 401)
    return runner


def actor_of(runner: Runner) -> Actor:
    """The runner as an actor of the audit log."""
    return Actor(kind=ActorKind.RUNNER, id=str(runner.pk), name=runner.name)


def install_handlers(api: NinjaAPI) -> None:
    """Answer every refusal in one form."""

    @api.exception_handler(DoorError)
    def door_error(request: HttpRequest, error: DoorError) -> HttpResponse:
        return answer(api, request, error.status, error.code, error.message)

    @api.exception_handler(Contradiction)
    def contradiction(request: HttpRequest, error: Contradiction) -> HttpResponse:
        return answer(api, request, STATUS.get(error.code, 422), error.code, str(error))

    @api.exception_handler(OverflowError)
    @api.exception_handler(DataError)
    def too_large(request: HttpRequest, error: Exception) -> HttpResponse:
        return answer(api, request, 422, "invalid", "a value is too large for the database")

    @api.exception_handler(ValidationError)
    def invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
        return answer(api, request, 422, "invalid", problems_of(error))


def _refusals(runner: Runner) -> str:
    """Refusals are counted: most are entries of the audit log, and a token must not flood it."""
    return f"door-refusals:{runner.token_digest}"


def answer(
    api: NinjaAPI, request: HttpRequest, status: int, code: str, message: str
) -> HttpResponse:
    """`{"error": CODE, "message": WHAT TO DO}`."""
    if isinstance(runner := getattr(request, "auth", None), Runner):
        limits.count(_refusals(runner), 60)
    refusal = Refusal(error=code, message=message[:2000])
    return api.create_response(request, refusal.model_dump(), status=status)


def problems_of(error: ValidationError) -> str:
    """The first problems of a body, in words."""
    rows = [
        f"{'.'.join(str(p) for p in e.get('loc', ())[2:])}: {e.get('msg', '')}"
        for e in error.errors[:5]
    ]
    return "; ".join(rows) or "the body is not valid"


router = Router(auth=RunnerToken(), tags=["runs"])


@router.post("runs", response=Ack)
def post_run(request: HttpRequest, report: RunReport) -> Ack:
    """A run began or changed."""
    run = ingest.store_run(runner=runner_of(request), report=report)
    last = run.trials.order_by("-number").values_list("number", flat=True).first()
    return Ack(last_trial=last)


@router.get("memory", response=Memory)
def get_memory(request: HttpRequest, task_digest: str, run_id: str) -> Memory:
    """Other runs of a task on this runner's target: numbers, nobody's free text."""
    return memory.of(runner_of(request).target, task_digest=task_digest, but=run_id)


@router.post("trials", response=Ack)
def post_trials(request: HttpRequest, batch: TrialBatch) -> Ack:
    """Finished trials, oldest first."""
    return Ack(last_trial=ingest.store_trials(runner=runner_of(request), batch=batch))
