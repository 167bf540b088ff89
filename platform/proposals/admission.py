"""The door: who may submit what, and what is refused before anything is made.

A refusal has a stable code and says what to do; it is on the audit log and leaves nothing behind.
What is admitted is a commit on a branch, a row, a queued screening and an audit entry, together.
"""

from __future__ import annotations

import difflib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from audit import log
from audit.actors import Actor
from audit.canonical import plain, text
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils import timezone
from runs.models import Run, Runner, Target
from runs.texts import cleaned

from proposals import branches, operators
from proposals.acts import Denied, Ledger, locked_target, policy_in_force
from proposals.attestations import runner_actor
from proposals.models import Proposal
from proposals.people import actor_of
from proposals.screenings import queue
from proposals.states import OPEN, State
from runner.protocol import DraftSubmission
from sandbox.draft import draft_from_files
from sandbox.report import Draft, DraftError, digest_of

SIMILAR = 0.8
COMPARED = 50
_ENDED_BADLY = (State.REJECTED, State.FAILED, State.REFUSED, State.ROLLED_BACK)


class Refused(Denied):
    """Refused at the door: nothing was made."""


@dataclass(frozen=True, kw_only=True)
class _Offer:
    """A draft at the door, whoever brings it."""

    draft_id: uuid.UUID
    target_id: int
    actor: Actor
    requester: User
    runner: Runner | None
    run: Run | None
    files: Mapping[str, bytes]
    base_commit: str  # "": whatever is the head
    base_digest: str
    title: str
    summary: str
    generator: str
    operator: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    diagnosis: Mapping[str, Any] = field(default_factory=dict)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    after_trial: int = 0


def submit(*, runner: Runner, submission: DraftSubmission) -> Proposal:
    """A draft that a runner brings. Raises Refused; the same draft twice is one proposal."""
    actor = runner_actor(runner)
    with _door(actor, submission.draft_id, submission.files, runner.target.name):
        run = _run_of(runner, submission.run_id)
        offer = _Offer(
            draft_id=as_uuid(submission.draft_id, "draft_id"),
            target_id=runner.target_id,
            actor=actor,
            requester=runner.operator,
            runner=runner,
            run=run,
            files=_as_bytes(submission.files),
            base_commit=submission.base_commit,
            base_digest=submission.base_digest,
            title=submission.title,
            summary=submission.summary,
            generator=submission.generator,
            operator=submission.operator,
            parameters=submission.parameters,
            diagnosis=submission.diagnosis,
            rounds=[r.model_dump() for r in submission.rounds],
            after_trial=submission.after_trial,
        )
        return _admit(offer)


def upload(
    *,
    person: User,
    target: Target,
    files: Mapping[str, bytes],
    title: str,
    summary: str = "",
    draft_id: uuid.UUID | None = None,
) -> Proposal:
    """A draft that a person brings; the person is its requester, and may not approve it."""
    draft_id = draft_id or uuid.uuid4()
    actor = actor_of(person)
    with _door(actor, str(draft_id), files, target.name):
        if not person.is_active or not person.groups.exists():
            raise Refused("not_entitled", "only people with a role may submit a draft")
        if not title.strip() or len(title) > 200:
            raise Refused("invalid", "give it a title of at most 200 characters")
        offer = _Offer(
            draft_id=draft_id,
            target_id=target.pk,
            actor=actor,
            requester=person,
            runner=None,
            run=None,
            files=files,
            base_commit="",
            base_digest="",
            title=title.strip(),
            summary=summary[:8000],
            generator=f"uploaded by {person.get_username()}",
        )
        return _admit(offer)


def refuse(
    *, actor: Actor, draft_id: str, code: str, message: str, target: str, **more: Any
) -> None:
    """Put a refusal at the door on the log."""
    subject = f"draft:{text(draft_id)[:60] or 'unknown'}"
    data = plain({"code": code, "message": message[:1000], **more})
    with transaction.atomic(durable=True):
        log.append(
            actor=actor,
            verb="proposal.refused_at_door",
            subject=subject,
            target=target,
            reason=message[:1000],
            data=data,
        )


class _door:  # noqa: N801 - reads as a verb
    """Everything inside is admitted or refused with an entry on the log."""

    def __init__(
        self, actor: Actor, draft_id: str, files: Mapping[str, str | bytes], target: str
    ) -> None:
        self._actor, self._draft_id, self._files, self._target = actor, draft_id, files, target

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, DraftError):
            refused: Denied = Refused(error.code, str(error))
        elif isinstance(error, IntegrityError):
            refused = Refused("conflict", "the same draft is being submitted twice at once: retry")
        elif isinstance(error, Denied):
            refused = error
        else:
            return
        paths = [text(str(p))[:100] for p in list(self._files)[:8]]
        refuse(
            actor=self._actor,
            draft_id=self._draft_id,
            code=refused.code,
            message=refused.message,
            target=self._target,
            paths=paths,
        )
        raise refused from error


def as_uuid(value: str, name: str) -> uuid.UUID:
    """A UUID from the wire, or Refused."""
    try:
        return uuid.UUID(value)
    except ValueError as error:
        raise Refused("invalid", f"{name} is no UUID") from error


def _run_of(runner: Runner, run_id: str) -> Run:
    run = Run.objects.filter(run_id=as_uuid(run_id, "run_id"), runner=runner).first()
    if run is None:
        raise Refused("unknown_run", "this runner has reported no such run: report it first")
    return run


def _as_bytes(files: Mapping[str, str]) -> dict[str, bytes]:
    try:
        return {path: content.encode() for path, content in files.items()}
    except UnicodeEncodeError as error:
        raise Refused("not_text", "a file holds characters that are no text") from error


def _admit(offer: _Offer) -> Proposal:
    with transaction.atomic(durable=True):
        target = locked_target(offer.target_id)
        earlier = Proposal.objects.filter(draft_id=offer.draft_id).first()
        if earlier is not None:
            return _same(earlier, offer)
        draft = draft_from_files(offer.files)
        _, policy = policy_in_force()
        base = _base(offer, target)
        library = branches.living().library(base)
        _name_is_free(draft, library)
        mine = Proposal.objects.filter(state__in=list(OPEN), requester=offer.requester)
        mine = mine.filter(runner=offer.runner)
        if mine.count() >= policy.people.open_per_author:
            raise Refused(
                "too_many_open",
                f"{policy.people.open_per_author} proposals of this author wait already: "
                "each must be decided or withdrawn first",
            )
        proposal = _row(offer, target, draft, base)
        proposal.expires_at = timezone.now() + timedelta(hours=policy.people.pending_hours)
        proposal.save()
        done = branches.living().commit_draft(
            proposal_id=proposal.pk, base=base, files=draft.files, name=draft.name
        )
        proposal.branch = branches.branch_name(proposal.pk)
        proposal.commit, proposal.tree = done.commit, done.tree
        proposal.save()
        _tell(offer, proposal, target)
    return proposal


def _base(offer: _Offer, target: Target) -> str:
    if not target.desired_version:
        raise Refused("no_seed", f"{target.name} runs nothing yet: run `manage.py init`")
    head = branches.living().head()
    if offer.base_commit and offer.base_commit != head:
        raise Refused("stale_base", f"main is at {head}, not at {offer.base_commit}: draft again")
    known = {target.desired_digest, target.live_digest} - {""}
    if offer.base_digest and offer.base_digest not in known:
        raise Refused(
            "stale_base", f"{target.name} no longer runs {offer.base_digest[:12]}: draft again"
        )
    return head


def _name_is_free(draft: Draft, library: Mapping[str, branches.Operator]) -> None:
    taken = draft.name in library or f"tests/test_{draft.name}.py" in {
        f"tests/test_{name}.py" for name in library
    }
    if taken or Proposal.objects.filter(state__in=list(OPEN), name=draft.name).exists():
        raise Refused(
            "name_exists", f"a mechanism or an open proposal is called {draft.name}: rename it"
        )


def _row(offer: _Offer, target: Target, draft: Draft, base: str) -> Proposal:
    return Proposal(
        draft_id=offer.draft_id,
        target=target,
        run=offer.run,
        runner=offer.runner,
        requester=offer.requester,
        name=draft.name,
        title=text(offer.title),
        summary=text(offer.summary),
        generator=text(offer.generator),
        operator=text(offer.operator),
        recognised=operators.recognise(draft).operator,
        parameters=cleaned(offer.parameters),
        diagnosis=cleaned(offer.diagnosis),
        rounds=cleaned(offer.rounds),
        after_trial=offer.after_trial,
        similar_to=_similar(target, draft),
        mechanism_path=draft.mechanism_path,
        branch="",
        base_commit=base,
        base_digest=offer.base_digest or target.live_digest or target.desired_digest,
        digest=draft.digest,
    )


def _tell(offer: _Offer, proposal: Proposal, target: Target) -> None:
    ledger = Ledger(offer.actor)
    ledger.created(proposal)
    operator = None
    if offer.runner is not None:
        person = offer.runner.operator
        operator = {"id": str(person.pk), "name": person.get_username()}
    requester = {"id": str(offer.requester.pk), "name": offer.requester.get_username()}
    ledger.write(
        "proposal.submitted",
        subject=f"proposal:{proposal.pk}",
        target=target.name,
        reason=proposal.title,
        data={
            "proposal": proposal.pk,
            "draft_id": str(proposal.draft_id),
            "requester": requester,
            "operator": operator,
            "run": str(offer.run.run_id) if offer.run else None,
            "rounds_digest": digest_of(repr(proposal.rounds).encode()),
            **{
                name: getattr(proposal, name)
                for name in (
                    "name", "title", "digest", "commit", "tree", "branch", "base_commit",
                    "base_digest", "generator", "recognised", "after_trial",
                )
            },
        },
    )  # fmt: skip
    queue(ledger, proposal)


def _same(earlier: Proposal, offer: _Offer) -> Proposal:
    """The proposal that this draft became, if it is the same draft."""
    changed = branches.living().changed(earlier.base_commit, earlier.commit)
    same = (
        changed == dict(offer.files)
        and earlier.runner == offer.runner
        and earlier.requester_id == offer.requester.pk
        and (earlier.title, earlier.summary) == (text(offer.title), text(offer.summary))
        and earlier.generator == text(offer.generator)
        and earlier.rounds == cleaned(offer.rounds)
    )
    if not same:
        raise Refused("conflict", "another draft came under this draft_id: use a new one")
    return earlier


def _similar(target: Target, draft: Draft) -> Proposal | None:
    """An earlier proposal that ended badly and is nearly the same."""
    ended = Proposal.objects.filter(target=target, state__in=_ENDED_BADLY).order_by("-id")
    lines = draft.source.splitlines()
    for other in ended[:COMPARED]:
        source = branches.living().read(other.commit, other.mechanism_path)
        matcher = difflib.SequenceMatcher(None, source.splitlines(), lines, autojunk=False)
        if matcher.quick_ratio() >= SIMILAR and matcher.ratio() >= SIMILAR:
            return other
    return None
