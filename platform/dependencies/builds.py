"""From an approved request to a lock in force: begin, fail, adopt; and back: roll back.

Adopting is one transaction: the approvals are still valid and about exactly this, the lock that it
was judged against is still in force (compare-and-swap on the generation), the approvals are used
up, the new lock is written down, the log says so. Before it nothing has changed, after it
everything has; what was built and not adopted is only an image with another name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from audit.actors import SYSTEM
from django.contrib.auth.models import User
from django.db import transaction
from django.dispatch import Signal
from django.utils import timezone
from proposals import branches
from proposals.acts import Denied, Ledger, act, policy_in_force, said
from proposals.people import actor_of, is_reviewer, may_roll_back
from runs.models import Target

from dependencies import adopted, decisions, moves, verbs
from dependencies.models import DependencyRequest, LockVersion
from dependencies.states import State, Verb
from sandbox import lock as locks
from sandbox.checks import dependencies as checked
from sandbox.lock import Lock
from sandbox.report import digest_of
from sandbox.syntax import parse as parse_source

SILENT = timedelta(minutes=20)  # pip alone may take ten

lock_changed = Signal()
"""Sent after commit: whoever keeps the lock's file puts it there."""


@dataclass(frozen=True, kw_only=True)
class Built:
    """What the worker made and saw of an approved request."""

    image_id: str
    image_name: str
    sbom: str
    scan: dict[str, Any] = field(default_factory=dict)
    controls: int = 0  # of the doctor, all holding
    loaded: tuple[str, ...] = ()  # live mechanisms that were tried in it


def begin(request_id: int) -> DependencyRequest | None:
    """Take an approved request for building; None: it is not to be had (any more)."""
    with act(actor=SYSTEM, tried="build", subject=f"dependency:{request_id}") as ledger:
        request = verbs.locked(request_id)
        if request.state != State.APPROVED or decisions.drift(request):
            return None
        if decisions.unbound(request):
            return None  # the sweep voids it, with the reason
        if DependencyRequest.objects.filter(state=State.BUILDING).exists():
            return None
        moves.move(ledger, request, Verb.BUILD)
        request.attempt += 1
        request.claimed_at = timezone.now()
        request.progress = "starting"
        request.save(update_fields=["attempt", "claimed_at", "progress"])
        ledger.write(
            "dependency.building",
            subject=f"dependency:{request.pk}",
            data={"dependency": request.pk, "attempt": request.attempt},
        )
    return request


def again(*, request_id: int, person: User, reason: str) -> DependencyRequest:
    """A person has a failed build tried again: the approvals still stand."""
    subject = f"dependency:{request_id}"
    actor = actor_of(person)
    with act(actor=actor, tried="build", subject=subject, denial=verbs.DENIAL) as ledger:
        request = verbs.locked(request_id)
        _, policy = policy_in_force()
        if not (may_roll_back(person, policy) or person.pk == request.requester_id):
            raise Denied("not_entitled", "only who asked, reviewers and operators may")
        if request.state != State.BUILD_FAILED:
            raise Denied("wrong_state", f"it is {request.state}: there is no build to try again")
        if problem := decisions.drift(request) or decisions.unbound(request):
            raise Denied("stale", f"{problem}: it must be approved again")
        reason = said(reason)
        moves.move(ledger, request, Verb.RETRY, reason)
        data = {"dependency": request.pk}
        ledger.write("dependency.retried", subject=subject, reason=reason, data=data)
        verbs.send(verbs.to_build, request)
    return request


def fail(*, request_id: int, code: str, message: str) -> DependencyRequest:
    """The build came to nothing, and nothing changed."""
    with act(actor=SYSTEM, tried="fail", subject=f"dependency:{request_id}") as ledger:
        request = verbs.locked(request_id)
        moves.move(ledger, request, Verb.FAIL, message, code=code)
        ledger.write(
            "dependency.build_failed",
            subject=f"dependency:{request.pk}",
            reason=message,
            data={"dependency": request.pk, "code": code, "attempt": request.attempt},
        )
    return request


def adopt(*, request_id: int, built: Built) -> LockVersion:
    """Put the approved lock in force, with the image that was made of it."""
    with act(actor=SYSTEM, tried="adopt", subject=f"dependency:{request_id}") as ledger:
        request = verbs.locked(request_id)
        if request.state != State.BUILDING:
            raise Denied("wrong_state", f"it is {request.state}: what was built is not taken")
        if problem := decisions.drift(request) or decisions.unbound(request):
            raise Denied("stale", problem)
        _, policy = policy_in_force()
        record = {**request.record, "scan": built.scan}
        if problems := decisions.policy_problems(policy, record):
            raise Denied("denied_by_policy", "; ".join(problems)[:1500])
        base = _base(ledger)
        lock = LockVersion.objects.create(
            generation=base.generation + 1,
            kind=LockVersion.Kind.ADOPTION,
            request=request,
            digest=request.lock_after,
            text=request.lock_text,
            image_id=built.image_id,
            image_name=built.image_name,
            sbom=built.sbom,
            sbom_digest=digest_of(built.sbom.encode()),
            scan=built.scan,
            reason=request.reason,
            made_by=str(SYSTEM),
        )
        adopted.lock_of(lock)  # its bytes are those of the digest that was approved
        approvals = decisions.approvals_of(request)
        for review in approvals:
            moves.consume(ledger, review, lock)
        moves.move(ledger, request, Verb.ADOPT)
        ledger.write(
            "dependency.adopted",
            subject=f"dependency:{request.pk}",
            data={
                "dependency": request.pk,
                "approvals": [r.pk for r in approvals],
                "binding_digest": approvals[0].binding_digest,
                "controls": built.controls,
                "loaded": list(built.loaded),
                **_told(lock),
            },
        )
        _tell(lock)
    return lock


def _base(ledger: Ledger) -> LockVersion:
    """The newest lock; the seed's is written down before the first one follows it."""
    if (row := adopted.newest()) is not None:
        return row
    seed = locks.seed()
    row = LockVersion.objects.create(
        generation=1,
        kind=LockVersion.Kind.SEED,
        digest=seed.digest,
        text=seed.to_bytes().decode(),
        made_by=str(SYSTEM),
        reason="what a new installation has",
    )
    ledger.write("lock.seeded", subject="lock:1", data=_told(row))
    return row


def _told(lock: LockVersion) -> dict[str, Any]:
    return {
        "generation": lock.generation,
        "lock": lock.digest,
        "image_id": lock.image_id,
        "image_name": lock.image_name,
        "sbom_digest": lock.sbom_digest,
    }


def _tell(lock: LockVersion) -> None:
    generation = lock.generation
    transaction.on_commit(lambda: lock_changed.send(sender=LockVersion, generation=generation))


# --- back ---


def roll_back(*, generation: int, person: User, reason: str) -> LockVersion:
    """Put an earlier lock in force again. It needs no approval: it had one."""
    subject = f"lock:{generation}"
    actor = actor_of(person)
    with act(actor=actor, tried="roll_back", subject=subject, denial=verbs.DENIAL) as ledger:
        _, policy = policy_in_force()
        if not may_roll_back(person, policy):
            raise Denied("not_entitled", "only reviewers and operators may roll a lock back")
        reason = said(reason)
        now = adopted.newest()
        back = LockVersion.objects.filter(generation=generation).first()
        if now is None or back is None:
            raise Denied("unknown", f"there is no lock {generation}")
        if back.digest == now.digest:
            raise Denied("wrong_state", "that lock is in force")
        if DependencyRequest.objects.filter(state=State.BUILDING).exists():
            raise Denied("conflict", "an image is being built: wait for it, or reject the request")
        if broken := needing(adopted.lock_of(now), adopted.lock_of(back)):
            raise Denied("in_use", f"{'; '.join(broken)}: take that back first, on its target")
        lock = LockVersion.objects.create(
            generation=now.generation + 1,
            kind=LockVersion.Kind.ROLLBACK,
            restores=back,
            digest=back.digest,
            text=back.text,
            image_id=back.image_id,
            image_name=back.image_name,
            sbom=back.sbom,
            sbom_digest=back.sbom_digest,
            scan=back.scan,
            reason=reason,
            made_by=str(actor),
        )
        _follow(ledger, adopted.lock_of(lock), reason)
        ledger.write(
            "lock.rolled_back",
            subject=subject,
            reason=reason,
            data={"from": now.generation, "restores": back.generation, **_told(lock)},
        )
        _tell(lock)
    return lock


def _follow(ledger: Ledger, lock: Lock, reason: str) -> None:
    """Adopted requests that are not in the lock any more are revoked; those that are back again
    are restored."""
    closed = (State.ADOPTED, State.REVOKED)
    for request in DependencyRequest.objects.select_for_update().filter(state__in=closed):
        there = lock.version_of(request.package) == request.version and all(
            set(names) <= set(lock.modules.get(module, ()))
            for module, names in request.record["modules"].items()
        )
        if request.state == State.ADOPTED and not there:
            moves.move(ledger, request, Verb.REVOKE, reason)
        elif request.state == State.REVOKED and there:
            moves.move(ledger, request, Verb.RESTORE, reason)


def needing(now: Lock, then: Lock) -> list[str]:
    """Live mechanisms that import what the other lock has not, in words."""
    gone = {module for module in now.modules if module not in then.modules}
    roots = {module.partition(".")[0] for module in gone} - {
        module.partition(".")[0] for module in then.modules
    }
    found = []
    for target, name, source in live_mechanisms():
        tree = parse_source(name, source)
        imports = {package for _, package in checked.packages(tree)}
        if used := sorted(imports & roots):
            found.append(f"{name}, live on {target}, imports {', '.join(used)}")
    return found


def live_mechanisms() -> list[tuple[str, str, bytes]]:
    """What each target runs or should run: (target, mechanism, source)."""
    repository, found = branches.living(), []
    for target in Target.objects.filter(desired_version__gt=0):
        versions = {target.desired_version, target.live_version} - {None, 0}
        for activation in target.activations.filter(version__in=versions):
            source = repository.read(activation.commit, activation.mechanism_path)
            found.append((target.name, activation.mechanism, source))
    return found


def may_build_again(person: User, request: DependencyRequest) -> bool:
    """Whether the page offers it; the verb checks again."""
    _, policy = policy_in_force()
    mine = person.pk == request.requester_id
    return mine or is_reviewer(person, policy) or may_roll_back(person, policy)
