"""The runner's door, second half: desired state, attestations, drafts; and one shut door.

Mounted at `/api/v1/`. What may be decided by people only answers 403 here, and the attempt is on
the audit log: a token is never a person.
"""

from __future__ import annotations

import json

from audit import checkpoints, keys, log
from audit.actors import SYSTEM
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI, Router
from ninja.errors import HttpError, ValidationError
from runs import limits
from runs.api import (
    STATUS,
    DoorError,
    RunnerToken,
    StrictParser,
    answer,
    body_of,
    install_handlers,
    problems_of,
    runner_of,
)
from runs.api import actor_of as actor_of_runner
from runs.api import router as runs_router
from runs.models import Runner, Target

from proposals import branches, lifecycle, operators
from proposals.acts import Denied, record_denial
from proposals.admission import as_uuid, refuse
from proposals.facts import locks_for
from proposals.models import Activation, Proposal, Stop
from runner.protocol import (
    Ack,
    Desired,
    DraftSubmission,
    LibraryEntry,
    Observed,
    Submitted,
    signing_bytes,
)
from sandbox.report import digest_of

MAX_LIBRARY = 200
CONTRADICTED_SECONDS = 600

api = NinjaAPI(
    title="Escapement",
    version="1",
    urls_namespace="door",
    docs_url=None,
    openapi_url=None,
    parser=StrictParser(),
)
install_handlers(api)
router = Router(auth=RunnerToken(), tags=["mechanisms"])


@api.exception_handler(Denied)
def denied(request: HttpRequest, error: Denied) -> HttpResponse:
    """A verb that may not: the denial is on the log already."""
    return answer(api, request, STATUS.get(error.code, 422), error.code, error.message)


@api.exception_handler(ValidationError)
def invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    """A body that does not fit; a draft's refusal is on the log too."""
    message = problems_of(error)
    _record_refusal(request, "invalid", message)
    return answer(api, request, 422, "invalid", message)


@api.exception_handler(DoorError)
def door_error(request: HttpRequest, error: DoorError) -> HttpResponse:
    """A body over the limit, no JSON, no token."""
    _record_refusal(request, error.code, error.message)
    return answer(api, request, error.status, error.code, error.message)


@api.exception_handler(HttpError)
def unreadable(request: HttpRequest, error: HttpError) -> HttpResponse:
    """What the parser raised comes wrapped."""
    cause = error.__cause__ or error.__context__
    problem = cause if isinstance(cause, DoorError) else DoorError("invalid", str(error))
    return door_error(request, problem)


def _record_refusal(request: HttpRequest, code: str, message: str) -> None:
    runner = getattr(request, "auth", None)
    if not isinstance(runner, Runner) or not request.path.endswith("/runner/proposals"):
        return
    draft_id = "unknown"
    try:
        draft_id = str(json.loads(body_of(request))["draft_id"])
    except (ValueError, KeyError, TypeError, RecursionError, DoorError):
        draft_id = "unknown"  # not even readable: the entry says why it was refused
    refuse(
        actor=actor_of_runner(runner),
        draft_id=draft_id,
        code=code,
        message=message,
        target=runner.target.name,
    )


@router.get("desired", response=Desired)
def desired(request: HttpRequest) -> HttpResponse:
    """What this runner's target should run; 304 to a runner that names the tag of exactly that."""
    body = _desired(runner_of(request).target).model_dump_json().encode()
    tag = f'"{digest_of(body)}"'
    same = request.headers.get("If-None-Match", "")[:100] == tag
    reply = HttpResponse(status=304) if same else HttpResponse(body, "application/json")
    reply["ETag"] = tag
    return reply


def _desired(target: Target) -> Desired:
    """The desired state of a target just read, signed, with the exact source."""
    if not target.desired_version:
        raise DoorError("not_found", f"{target.name} has no mechanism yet: run `manage.py init`")
    activation = Activation.objects.select_related("restores").get(
        target=target, version=target.desired_version
    )
    repository = branches.living()
    source = repository.read(activation.commit, activation.mechanism_path)
    if digest_of(source) != activation.digest:
        raise DoorError("broken", "git does not hold what was approved: run verify_audit", 500)
    stop = Stop.objects.filter(target=target, released_at__isnull=True).first()
    head, locks = repository.head(), locks_for(activation)
    signed = signing_bytes(
        target=target.name,
        version=activation.version,
        commit=activation.commit,
        digest=activation.digest,
        locks=locks,
    )
    return Desired(
        target=target.name,
        version=activation.version,
        mechanism=activation.mechanism,
        commit=activation.commit,
        digest=activation.digest,
        source=source.decode(),
        signature=keys.sign(signed),
        stopped=stop is not None,
        stop_reason=stop.reason if stop else "",
        base_commit=head,
        library=_library(repository, head),
        audit_checkpoint=checkpoints.anchor(),
        locks=locks,
    )


def _library(repository: branches.Repository, commit: str) -> list[LibraryEntry]:
    found = list(repository.library(commit).values())[:MAX_LIBRARY]
    good, _ = operators.approved()
    return [
        LibraryEntry(
            name=o.name,
            digest=digest_of(o.source),
            source=o.source.decode(),
            test=o.test.decode(),
            approved=o.name in good and good[o.name].source == o.source,
        )
        for o in found
    ]


@router.post("observed", response=Ack)
def observed(request: HttpRequest, report: Observed) -> Ack:
    """What this runner runs; the attestation that makes a mechanism live."""
    runner = runner_of(request)
    if report.audit_checkpoint and (why := checkpoints.contradiction(report.audit_checkpoint)):
        _contradicted(runner, why)
    lifecycle.observe(runner=runner, observed=report)
    return Ack()


def _contradicted(runner: Runner, why: str) -> None:
    """A checkpoint came back that the log does not have: say so, and stop autonomy. The same in
    every heartbeat is one entry in ten minutes."""
    if limits.count(f"contradicted:{runner.token_digest}:{why}", CONTRADICTED_SECONDS) > 1:
        return
    with transaction.atomic():
        log.append(
            actor=SYSTEM,
            verb="audit.contradicted",
            subject="audit",
            target=runner.target.name,
            data={"runner": runner.name, "message": why},
        )
    lifecycle.stop_autonomy_by_platform(reason=f"a runner's checkpoint contradicts the log: {why}")


@router.post("proposals", response=Submitted)
def submit(request: HttpRequest, draft: DraftSubmission) -> Submitted:
    """A draft of Level 2."""
    return _submitted(lifecycle.submit(runner=runner_of(request), submission=draft))


@router.get("proposals/{draft_id}", response=Submitted)
def state(request: HttpRequest, draft_id: str) -> Submitted:
    """Where a draft of this runner is on its way."""
    found = Proposal.objects.filter(
        draft_id=as_uuid(draft_id, "draft_id"), runner=runner_of(request)
    ).first()
    if found is None:
        raise DoorError("not_found", "this runner submitted no such draft")
    return _submitted(found)


def _submitted(proposal: Proposal) -> Submitted:
    return Submitted(
        draft_id=str(proposal.draft_id),
        proposal=proposal.pk,
        state=proposal.state,
        reason=proposal.state_reason,
    )


people = Router(auth=RunnerToken(), tags=["people"])
PEOPLE_ONLY = frozenset({"approve", "reject", "withdraw", "rescreen", "activate"})


@people.post("{int:proposal_id}/{verb}")
def people_only(request: HttpRequest, proposal_id: int, verb: str) -> HttpResponse:
    """Every decision is a person's, in a session of their own; a token gets 403 and an entry."""
    runner = runner_of(request)
    if verb not in PEOPLE_ONLY:
        raise DoorError("not_found", "there is no such door")
    problem = Denied("not_a_person", f"{runner.name} is a runner: only people {verb}, on the pages")
    record_denial(
        problem,
        actor=actor_of_runner(runner),
        tried=verb,
        subject=f"proposal:{proposal_id}",
        target=runner.target.name,
        verb="review.denied" if verb in {"approve", "reject"} else "action.denied",
    )
    return answer(api, request, 403, problem.code, problem.message)


api.add_router("/runner/", runs_router)
api.add_router("/runner/", router)
api.add_router("/proposals/", people)
