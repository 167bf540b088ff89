"""Asking for a package, and what the worker and time make of it: ask, record, refuse, withdraw,
expire, renew.

Each verb is one transaction that locks, asks the table, acts and writes the audit entry, and
raises `Denied` where it may not. Deciding is in `decisions`, building in `builds`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from audit.actors import SYSTEM
from audit.canonical import text
from django.contrib.auth.models import User
from django.db import transaction
from django.dispatch import Signal
from django.utils import timezone
from proposals.acts import Denied, Ledger, act, policy_in_force, said
from proposals.models import Proposal
from proposals.people import actor_of

from dependencies import moves
from dependencies.models import DependencyRequest
from dependencies.states import OPEN, State, Verb
from sandbox import depreq, opened
from sandbox.depreq import Request
from sandbox.wheel_facts import RequestError

DENIAL = "dependency.denied"
MAX_OPEN_A_PERSON = 10
MAX_MODULES_CHARS = 8000

to_record = Signal()
"""Sent after commit with `request_id`: the worker makes the record."""
to_build = Signal()
"""Sent after commit with `request_id`: the worker builds."""


def ask(
    *, person: User, pin: str, modules: str, reason: str, proposal_id: int | None = None
) -> DependencyRequest:
    """Ask for `package==version`; the worker makes the record that people judge."""
    subject = f"dependency:{text(pin.strip())[:100] or 'unnamed'}"
    with act(actor=actor_of(person), tried="ask", subject=subject, denial=DENIAL) as ledger:
        _, policy = policy_in_force()
        if not person.is_active or not person.groups.exists():
            raise Denied("not_entitled", "only people with a role here may ask for a package")
        package, version = _parts(pin)
        _modules(modules)
        reason = said(reason)
        open_ones = DependencyRequest.objects.filter(state__in=[s.value for s in OPEN])
        twin = open_ones.filter(package=package, version=version).first()
        if twin is not None:
            raise Denied("name_exists", f"request {twin.pk} asks for {twin.pin} already: read it")
        if open_ones.filter(requester=person).count() >= MAX_OPEN_A_PERSON:
            raise Denied("too_many", f"you have {MAX_OPEN_A_PERSON} open requests: wait for them")
        request = DependencyRequest.objects.create(
            requester=person,
            proposal=Proposal.objects.filter(pk=proposal_id).first() if proposal_id else None,
            package=package,
            version=version,
            modules=text(modules.strip()),
            reason=reason,
            expires_at=timezone.now() + timedelta(hours=policy.people.pending_hours),
        )
        moves.created(ledger, request)
        ledger.write(
            "dependency.asked",
            subject=f"dependency:{request.pk}",
            reason=reason,
            data={
                "dependency": request.pk,
                "package": package,
                "version": version,
                "modules": request.modules,
                "requester": {"id": str(person.pk), "name": person.get_username()},
                "proposal": request.proposal_id,
            },
        )
        send(to_record, request)
    return request


def _parts(pin: str) -> tuple[str, str]:
    try:
        return depreq.parts(pin.strip())
    except RequestError as error:
        raise Denied("invalid", str(error)) from error


def _modules(text: str) -> None:
    if len(text) > MAX_MODULES_CHARS:
        raise Denied("too_long", f"at most {MAX_MODULES_CHARS} characters of modules")
    try:
        opened.parse(text)
    except opened.OpenedError as error:
        raise Denied("invalid", str(error)) from error


def send(signal: Signal, request: DependencyRequest) -> None:
    """Tell the worker, once the transaction that is open holds."""
    pk = request.pk
    transaction.on_commit(lambda: signal.send(sender=DependencyRequest, request_id=pk))


def record(*, request_id: int, made: Request) -> DependencyRequest:
    """Store what was found, and give it to reviewers. Denied where it moved on meanwhile."""
    with act(actor=SYSTEM, tried="record", subject=f"dependency:{request_id}") as ledger:
        request = locked(request_id)
        data = made.to_data()
        request.record, request.record_digest = data, data["digest"]
        request.lock_before, request.lock_after = made.lock_before, made.lock_after
        request.lock_text = made.lock.to_bytes().decode()
        moves.move(ledger, request, Verb.RECORD)
        ledger.write(
            "dependency.recorded",
            subject=f"dependency:{request.pk}",
            reason="; ".join(made.problems)[:2000],
            data={
                "dependency": request.pk,
                "record_digest": request.record_digest,
                "lock_before": request.lock_before,
                "lock_after": request.lock_after,
                "brings": list(made.brings),
                "wheels": {w.file: w.sha256 for w in made.wheels},
                "advisories": {k: made.scan[k] for k in ("state", "snapshot", "dated")},
            },
        )
    return request


def refuse(*, request_id: int, code: str, message: str) -> DependencyRequest:
    """No record can be made of it: the request ends, with the reason."""
    with act(actor=SYSTEM, tried="refuse", subject=f"dependency:{request_id}") as ledger:
        request = locked(request_id)
        moves.move(ledger, request, Verb.REFUSE, message, code=code)
        data: Mapping[str, Any] = {
            "dependency": request.pk,
            "code": code,
            "message": message[:1000],
        }
        subject = f"dependency:{request.pk}"
        ledger.write("dependency.refused", subject=subject, reason=message, data=data)
    return request


def withdraw(*, request_id: int, person: User, reason: str) -> DependencyRequest:
    """The requester takes it back."""
    subject = f"dependency:{request_id}"
    actor = actor_of(person)
    with act(actor=actor, tried="withdraw", subject=subject, denial=DENIAL) as ledger:
        request = locked(request_id)
        if not person.is_active or request.requester_id != person.pk:
            raise Denied("not_entitled", "only who asked may withdraw it: reject it instead")
        end(ledger, request, Verb.WITHDRAW, said(reason), "dependency.withdrawn")
    return request


def expire(*, request_id: int) -> DependencyRequest:
    """Silence is no."""
    with act(actor=SYSTEM, tried="expire", subject=f"dependency:{request_id}") as ledger:
        request = locked(request_id)
        if request.expires_at > timezone.now():
            raise Denied("wrong_state", f"it does not expire before {request.expires_at}")
        end(ledger, request, Verb.EXPIRE, "nobody decided in time", "dependency.expired")
    return request


def renew(*, request_id: int, reason: str) -> DependencyRequest:
    """The lock that it was judged against is not in force any more: the record is made again."""
    with act(actor=SYSTEM, tried="renew", subject=f"dependency:{request_id}") as ledger:
        request = locked(request_id)
        end(ledger, request, Verb.RENEW, reason, "dependency.renewed")
        request.attempt = 0
        request.save(update_fields=["attempt"])
        send(to_record, request)
    return request


def end(ledger: Ledger, request: DependencyRequest, verb: Verb, reason: str, entry: str) -> None:
    """Void what was decided, move on, write the entry; inside the verb that is open."""
    moves.void_all(ledger, request, f"{verb}: {reason}")
    moves.move(ledger, request, verb, reason)
    subject = f"dependency:{request.pk}"
    ledger.write(entry, subject=subject, reason=reason, data={"dependency": request.pk})


def locked(request_id: int) -> DependencyRequest:
    """The request, locked."""
    rows = DependencyRequest.objects.select_for_update(of=("self",)).select_related("requester")
    found = rows.filter(pk=request_id).first()
    if found is None:
        raise Denied("unknown", f"there is no request {request_id}")
    return found


def progress(request_id: int, words: str) -> None:
    """Say how far the worker is, and that it lives."""
    open_ones = DependencyRequest.objects.filter(
        pk=request_id, state__in=[State.ASKED, State.BUILDING]
    )
    open_ones.update(progress=words[:300], claimed_at=timezone.now())
